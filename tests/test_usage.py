"""Wrong usage answers at once: exit 2, one line with the remedy, and torch is not imported."""

import json
import subprocess
import sys

import pytest
from typer.testing import CliRunner

from mltool.cli import app

TRAIN = "train missing -o m.safetensors"
DISTILL = "distill missing -t t.h5 -o m.safetensors"
PRETRAIN = "pretrain missing -o s.safetensors"
EMBED = "embed pixels missing -o x.h5"
LONG = {
    # components and their settings
    f"{TRAIN} --loss contrastiv": "did you mean contrastive",
    f"{TRAIN} --loss contrastive:margn=1": "no setting 'margn'",
    f"{TRAIN} --loss contrastive:weight=x": "weight takes a number",
    f"{TRAIN} --loss rkd": "no component 'rkd'",
    f"{TRAIN} --pooling gm": "there are: avg",
    f"{TRAIN} --projection lin": "is not one of 'linear'",
    f"{TRAIN} --miner none": "no component",
    f"{TRAIN} --mixup input:pairs=pos": "join some of pos-neg",
    f"{TRAIN} --mixup input:per_anchor=0": "1 or more or none",
    f"{TRAIN} --augment crp": "did you mean crop",
    f"{DISTILL} --loss relaxed-contrast": "did you mean relaxed-contrastive",
    f"{DISTILL} --loss contrastive+:margn=1": "no setting 'margn'",
    f"{EMBED} --augment crp": "did you mean crop",
    f"{EMBED} --pooling gm": "there are: avg",
    "search a.h5 b.h5 --pooling gm": "there are: avg",
    "positivity m.safetensors missing --loss nc": "did you mean nca",
    "pseudolabel a.h5 -o p.csv --method kmean:k=3": "did you mean kmeans",
    "pseudolabel a.h5 -o p.csv --method nearest": "needs --reference",
    "pseudolabel a.h5 -o p.npy": "image list (.csv) or embeddings (.h5)",
    # bounds
    "pseudolabel a.h5 -o p.csv --method kmeans:k=0": "1 or more",
    "pseudolabel a.h5 -o p.csv --min-size 0": "greater than or equal to 1",
    "dedup photos -o p.csv --min-score nan": "a number",
    "dedup photos -o p.csv --max-memory 4X": "500M or 4G",
    f"{TRAIN} --epochs -1": "greater than or equal to 0",
    f"{TRAIN} --to-epoch 21": "raise --epochs",
    f"{TRAIN} --from-epoch 20": "nothing is left to do before --epochs 20",
    f"{TRAIN} --from-epoch 3 --to-epoch 3": "nothing is left to do before --to-epoch 3",
    f"{TRAIN} --to-epoch 0": "greater than or equal to 1",
    f"{TRAIN} --keep-optimizer": "--keep-optimizer needs --init",
    f"{PRETRAIN} --keep-optimizer": "--keep-optimizer needs --init",
    f"{TRAIN} --lr 0": "more than 0",
    f"{TRAIN} --lr nan": "more than 0",
    f"{TRAIN} --lr-backbone nan": "0 or more",
    f"{TRAIN} --warmup -1": "0 or more",
    f"{TRAIN} --momentum 1": "0 or more and less than 1",
    f"{TRAIN} --ema 1": "less than 1",
    f"{TRAIN} --clip -1": "more than 0",
    f"{TRAIN} --threads 0": "greater than or equal to 1",
    f"{TRAIN} --workers -1": "greater than or equal to 0",
    f"{TRAIN} --seed -1": "greater than or equal to 0",
    f"{TRAIN} -b 0": "greater than or equal to 1",
    f"{TRAIN} --device gpu": "use auto, cpu, cuda, cuda:N or mps",
    f"{TRAIN} --select map@k": "no such metric",
    f"{TRAIN} --image-size 64 --resize 32": "raise --resize or lower --image-size",
    f"{EMBED} --image-size 64 --resize 32": "raise --resize or lower --image-size",
    f"{TRAIN} --limit -4": "greater than or equal to 1",
    f"{TRAIN} --memory 0": "greater than or equal to 1",
    f"{TRAIN} --save-every nan": "0 or more",
    f"{DISTILL} --neighbors 1": "greater than or equal to 2",
    f"{DISTILL} --stages 0": "greater than or equal to 1",
    f"{EMBED} --views 0": "greater than or equal to 1",
    f"{EMBED} --shard 4/4": "I from 0 to N - 1",
    "search a.h5 b.h5 -k 0": "greater than or equal to 1",
    "search a.h5 b.h5 --min-score nan": "a number",
    "search a.h5 b.h5 --max-memory 4X": "500M or 4G",
    "evaluate a.h5 --bootstrap -1": "greater than or equal to 0",
    "evaluate a.h5 --max-memory 0": "500M or 4G",
    "plot ranking a.h5 -o a.png --worst 0": "greater than or equal to 1",
    "pack missing -o a.h5 --quality 96": "less than or equal to 95",
    # heads on cached vectors
    f"{TRAIN} -a vectors --image-size 8": "--image-size is for images",
    f"{TRAIN} -a vectors --projection conv": "for feature maps",
    f"{TRAIN} -a vectors --mixup feature": "--mixup input mixes the vectors themselves",
    f"{DISTILL} -a vectors --loss fitnet": "compares feature maps",
    f"{DISTILL} -a vectors --loss contrastive+ --loss crd": "compares pooled features",
    f"{DISTILL} -a vectors --views 2": "always the same",
    # what an option needs, and what does not go together
    f"{TRAIN} --patience 3": "--patience needs --val",
    f"{TRAIN} --memory-start 3": "--memory-start needs --memory",
    f"{TRAIN} --basis slade": "--basis needs --unlabeled",
    f"{TRAIN} --unlabeled-labels p.csv": "--unlabeled-labels needs --unlabeled",
    f"{TRAIN} --unlabeled-loss nca": "--unlabeled-loss needs --unlabeled",
    f"{TRAIN} --unlabeled-batch-size 9": "--unlabeled-batch-size needs --unlabeled",
    f"{TRAIN} --unlabeled missing --basis slad": "did you mean slade",
    f"{TRAIN} --unlabeled missing --basis slade --loss arcface": "--unlabeled-loss contrastive",
    f"{TRAIN} --unlabeled missing --mining hard": "leave it out beside --unlabeled",
    f"{TRAIN} --queries 3": "--queries needs --mining",
    f"{TRAIN} --lr-group poling=1": "did you mean pooling",
    f"{TRAIN} --lr-group backbone=1 --lr-backbone 1": "a rate already",
    f"{TRAIN} --init a --weights timm": "leave out --weights",
    f"{TRAIN} --mining hard --miner hard": "leave out --miner",
    f"{TRAIN} --mining hard --images-per-class 2": "--mining chooses the batches",
    f"{TRAIN} --mining hard --loss lifted-structure": "leave out --mining",
    f"{TRAIN} --miner hard --loss proxy-anchor": "nothing to choose from",
    f"{TRAIN} --memory 9 --loss proxy-anchor": "all candidates are proxies",
    f"{TRAIN} --memory 9 --loss lifted-structure": "every image of the batch",
    f"{TRAIN} --memory 9 --miner angular": "no place beside --miner angular",
    f"{TRAIN} --mixup input --loss proxy-nca": "only --mixup embedding",
    f"{TRAIN} --mixup embedding --loss soft-triple": "several proxies",
    f"{DISTILL} --loss regression --stages 2": "--stages is for",
    f"{DISTILL} --loss fitnet": "would stay random",
    f"{DISTILL} --loss crd --loss attention --projection linear": "would stay random",
    f"{DISTILL} --loss contrastive --symmetric": "mltool train",
    f"{DISTILL} --loss pkt --symmetric": "says nothing to transfers",
    f"{DISTILL} --loss contrastive+ --symmetric --mining hard": "its own positive",
    f"{DISTILL} --loss contrastive+ --positives self": "its own, or none",
    f"{DISTILL} --loss lifted-structure": "say --symmetric",
    f"{DISTILL} --neighbors 3 --mining hard": "leave one out",
    f"{DISTILL} --views 2 --mining hard": "leave one out",
    f"{DISTILL} --loss pkt --mining hard": "no --loss has a use",
    f"{DISTILL} --loss proxy-anchor --mining hard --symmetric": "no --loss has a use",
    f"{DISTILL} --loss pkt --neighbors 3 --images-per-class 2": "--neighbors chooses",
    f"{DISTILL} --loss pkt --memory 9": "no --loss compares pairs",
    f"{DISTILL} --loss regression --memory 9": "its own vector of the teacher alone",
    f"{DISTILL} --loss contrastive --mixup input": "with --symmetric they are the student's",
    f"{DISTILL} --loss contrastive --miner angular": "say --symmetric",
    "evaluate a.h5 --ground-truth g.pkl": "needs --protocol",
    "evaluate a.h5 --metrics map@r,knn-accuracy@20": "name those as GALLERY",
    "concat a.h5 -o b.h5": "two or more models",
    "evaluate a.h5 --protocol revisited": "--protocol needs --ground-truth",
    "evaluate a.h5 --protocol revisited --ground-truth g.pkl --run r": "leave out --run",
}


@pytest.mark.parametrize(("words", "message"), LONG.items(), ids=lambda text: text[:60])
def test_wrong_usage_exits_2_and_names_the_remedy(words: str, message: str) -> None:
    done = CliRunner().invoke(app, words.split())
    assert done.exit_code == 2, done.output
    assert message in " ".join(done.stderr.split())
    assert done.stdout == ""


def test_wrong_usage_imports_no_torch() -> None:
    code = (
        "import json, sys\n"
        "from typer.testing import CliRunner\n"
        "from mltool.cli import app\n"
        f"for words in {list(LONG)!r}:\n"
        "    assert CliRunner().invoke(app, words.split()).exit_code == 2, words\n"
        "print(json.dumps(sorted(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"torch", "torchvision", "timm", "numpy"} & set(json.loads(done.stdout))


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("flag", "more than 0"),
        ("environment", "more than 0"),
        ("file", "more than 0"),
    ],
)
def test_bounds_hold_for_flags_environment_and_files(
    source: str, message: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    words, environment = TRAIN.split(), {}
    if source == "flag":
        words += ["--lr", "nan"]
    elif source == "environment":
        environment["MLTOOL_TRAIN_LR"] = "nan"
    else:
        path = tmp_path_factory.mktemp("config") / "options.toml"
        path.write_text("[train]\nlr = nan\n")
        words += ["--config", str(path)]
    done = CliRunner().invoke(app, words, env=environment)
    assert done.exit_code == 2, done.output
    assert message in done.stderr


def sections(command: str) -> dict[str, str]:
    """Return the help of a command by the titles of its sections."""
    out = CliRunner().invoke(app, [command, "--help"]).stdout
    parts = out.split("\n\n")
    return {part.split(":")[0]: part for part in parts if part.split("\n")[0].endswith(":")}


def test_an_argument_stands_among_the_arguments_whatever_other_commands_call_so() -> None:
    shown = sections("evaluate")
    assert "QUERIES" in shown["Arguments"]
    assert "Batches" not in shown
    assert "--queries" in sections("train")["Batches"]


def test_sections_stand_in_the_order_of_the_groups() -> None:
    titles = ["Arguments", "Options", "Model", "Objective", "Images", "Batches"]
    titles += ["Unlabelled images", "Divide and conquer", "Optimisation"]
    assert list(sections("train")) == [*titles, "Validation", "Run"]
    assert list(sections("distill"))[:4] == ["Arguments", "Options", "Model", "Teacher"]
