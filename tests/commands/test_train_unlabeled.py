"""`train --unlabeled`: a second stream of images with pseudo-labels, with and without a basis."""

import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mltool.commands.unlabeled import describe_maker
from mltool.datasets import open_data
from mltool.files import embeddings, history
from mltool.files.embeddings import Embeddings
from mltool.files.lists.csv_list import write_csv
from mltool.files.manifest import Manifest
from mltool.models import checkpoint

Run = Callable[..., subprocess.CompletedProcess]
LABELLED = 100
TINY = ("--arch", "test_resnet", "--image-size", 16, "--resize", 16, "--dim", 8, "-j", 0)
SHORT = (*TINY, "-b", 20, "--epochs", 2, "--threads", 1, "-d", "cpu", "--limit", LABELLED)
BASIS = ("slade/classes", "slade/pairs")


def pseudo_list(path: Path, *, count: int = 120, **columns: np.ndarray) -> Path:
    """The first digits 5 to 9, under labels of another kind."""
    manifest = open_data(["digits:test"], limit=count)
    names = tuple(f"cluster {c}" for c in manifest.label_names)
    return write(path, replace(manifest, label_names=names), **columns)


def write(path: Path, manifest: Manifest, **columns: np.ndarray) -> Path:
    write_csv(path, manifest, columns=columns)
    return path


def logged(path: Path) -> dict[str, list[float]]:
    values: dict[str, list[float]] = {}
    for line in map(json.loads, path.read_text().splitlines()):
        values.setdefault(line["name"], []).append(line["value"])
    return values


def test_a_student_learns_from_both_lists(tmp_path: Path, train: Run) -> None:
    pseudo, log = pseudo_list(tmp_path / "pseudo.csv"), tmp_path / "log.jsonl"
    done = train("--unlabeled", pseudo, "--basis", "slade:warmup=none", "--log", log)
    assert "train: 100 images, 5 classes" in done.stderr
    assert "unlabeled: 120 images, 5 classes" in done.stderr
    assert "in steps of 5 x 4" in done.stderr
    assert "does not say which model" in done.stderr
    assert done.stderr.count("slade: mean score") == 2  # one for each epoch
    values = logged(log)
    assert list(values) == [
        *("loss", "multi-similarity", *BASIS, "unlabeled/multi-similarity"),
    ]
    assert np.isfinite(values["loss"]).all()
    step = history.read(tmp_path / "m.safetensors")[-1]
    assert [item["option"] for item in step["inputs"]] == ["data", "--unlabeled"]
    assert step["counts"] == {"images": 100, "classes": 5, "unlabeled": 120, "pseudo_classes": 5}
    settings = step["settings"]
    assert settings["unlabeled_batch_size"] == 20
    assert settings["basis"].startswith("slade:weight=0.25,warmup=None,distribution=1.0")
    assert "unlabeled_loss" not in settings
    saved = checkpoint.read(str(tmp_path / "m.safetensors"))
    assert saved.objective["terms.basis.basis.vectors"].shape == (5, 8)
    assert saved.classes == tuple("01234")


def test_without_the_option_nothing_is_recorded(tmp_path: Path, train: Run) -> None:
    train("--epochs", 0)
    step = history.read(tmp_path / "m.safetensors")[-1]
    assert not {key for key in step["settings"] if "unlabeled" in key or key == "basis"}
    assert step["counts"] == {"images": 100, "classes": 5}


def test_confidence_and_truth_are_not_read(tmp_path: Path, train: Run) -> None:
    """But a column `weight` is, as in every list."""
    columns = {
        "confidence": np.linspace(0, 1, 120),
        "truth": np.arange(120) % 7,
    }
    plain, full = tmp_path / "plain" / "p.csv", tmp_path / "full" / "p.csv"
    for path, further in ((plain, {}), (full, columns)):
        path.parent.mkdir()
        pseudo_list(path, **further)
        train("--unlabeled", path, "--basis", "slade", name=path.parent.name)
    bytes_of = {name: (tmp_path / f"{name}.safetensors").read_bytes() for name in ("plain", "full")}
    assert bytes_of["plain"] == bytes_of["full"]
    pseudo_list(full, weight=np.full(120, 2.0))
    logs = [tmp_path / "one.jsonl", tmp_path / "two.jsonl"]
    for path, log in zip((plain, full), logs, strict=True):
        train("--unlabeled", path, "--log", log, "--epochs", 1, "--loss", "contrastive")
    first, second = (logged(log)["unlabeled/contrastive"][0] for log in logs)
    assert second == pytest.approx(2 * first, rel=1e-5)


def test_labels_of_the_two_lists_are_never_one_class(tmp_path: Path, train: Run) -> None:
    """The pseudo-labels bear the texts of classes, and proxies are counted apart."""
    manifest = open_data(["digits:test"], limit=90)
    texts = tuple(str(n) for n in range(5))
    pseudo = write(tmp_path / "pseudo.csv", replace(manifest, label_names=texts))
    train("--unlabeled", pseudo, "--loss", "proxy-anchor", "--unlabeled-loss", "nca:weight=0.5")
    train("--unlabeled", pseudo, "--loss", "proxy-anchor", name="proxies")
    objective = checkpoint.read(str(tmp_path / "proxies.safetensors")).objective
    shapes = {key: tuple(of.shape) for key, of in objective.items()}
    keys = ("terms.0.proxies.weight", "terms.unlabeled/0.proxies.weight")
    assert shapes == dict.fromkeys(keys, (5, 8))
    step = history.read(tmp_path / "m.safetensors")[-1]
    assert step["settings"]["unlabeled_loss"] == ["nca:scale=1.0,weight=0.5"]


def test_sizes_of_the_second_batch(tmp_path: Path, train: Run) -> None:
    pseudo = pseudo_list(tmp_path / "pseudo.csv")
    for words, shape in (
        ((), "5 x 4"),
        (("--unlabeled-batch-size", 8), "2 x 4"),
        (("--classes-per-batch", 2, "--images-per-class", 3), "2 x 3"),
        (("-b", 30, "--images-per-class", 6), "5 x 6"),
    ):
        done = train("--unlabeled", pseudo, *words, "--dry-run")
        assert f"in steps of {shape}" in done.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_without_a_basis_the_second_stream_is_as_the_first(tmp_path: Path, train: Run) -> None:
    pseudo, log = pseudo_list(tmp_path / "pseudo.csv"), tmp_path / "log.jsonl"
    words = ("--memory", 30, "--memory-start", 0, "--mixup", "embedding", "--miner", "hard")
    loss = ("--loss", "contrastive", "--log", log)
    train("--unlabeled", pseudo, *words, *loss, "--epochs", 1)
    first = {"contrastive", "contrastive/memory", "contrastive/mixed"}
    second = {f"unlabeled/{name}" for name in first}
    assert logged(log).keys() == {"loss"} | first | second
    basis = ("--basis", "slade:warmup=1")
    done = train("--unlabeled", pseudo, *words, *loss, "--epochs", 2, *basis)
    assert "the model stands still in the first 1 steps\n" in done.stderr
    assert logged(log).keys() == {"loss", "unlabeled/contrastive", *BASIS} | first


def test_a_finished_student_is_resumed_only_as_it_was(tmp_path: Path, train: Run) -> None:
    pseudo = pseudo_list(tmp_path / "pseudo.csv")
    words = ("--unlabeled", pseudo, "--resume", "--epochs", 1)
    train(*words, "--basis", "slade")
    assert "finished already" in train(*words, "--basis", "slade").stderr
    pseudo_list(pseudo, count=100)
    assert "finished already" not in train(*words, "--basis", "slade").stderr


REFUSED = {
    "--loss proxy-anchor --basis slade": (2, "proxies of classes; give the unlabelled"),
    "--loss mutual-information --basis slade": (2, "not pairs; give the unlabelled"),
    "--loss lifted-structure --basis slade": (2, "every image of the batch"),
    "--basis slad": (2, "did you mean slade"),
    "--basis slade:warmup=0": (2, "1 or more or none"),
    "--basis slade:gradient=half": (2, "full or damped"),
    "--mining hard": (2, "leave it out beside --unlabeled"),
    "--unlabeled-loss proxy-anchor --memory 9 --memory-start 0": (2, "candidates are proxies"),
    "--loss contrastive:form=distance,margin=2.1": (2, "no unit vectors are 2.1 apart"),
    "-b 120": (5, "100 labelled images are fewer than a batch of 120; lower --batch-size"),
    "--unlabeled-batch-size 150": (5, "120 unlabelled images are fewer than a batch of 150"),
    "--small-classes error --unlabeled-batch-size 100 --images-per-class 50": (5, "classes"),
}


@pytest.mark.parametrize("words", REFUSED)
def test_what_does_not_fit_is_refused(tmp_path: Path, train: Run, words: str) -> None:
    status, message = REFUSED[words]
    pseudo = pseudo_list(tmp_path / "pseudo.csv")
    done = train("--unlabeled", pseudo, *words.split(), status=status)
    assert message in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("*.safetensors"))


def test_a_list_without_pseudo_labels_is_refused(tmp_path: Path, train: Run) -> None:
    manifest = open_data(["digits:test"], limit=60)
    nothing = replace(manifest, labels=np.full(60, -1))
    path = write(tmp_path / "bare.csv", nothing)
    done = train("--unlabeled", path, status=5)
    assert "bare.csv: no image has a pseudo-label; run `mltool pseudolabel` first" in done.stderr
    write(path, replace(manifest, labels=np.where(np.arange(60) < 7, -1, manifest.labels)))
    done = train("--unlabeled", path, "--epochs", 0)
    assert "7 images without a pseudo-label are left out" in done.stderr
    assert "unlabeled: 53 images" in done.stderr


def test_an_image_in_both_lists_is_refused(tmp_path: Path, train: Run) -> None:
    both = replace(open_data(["digits"]).take(np.arange(90, 300)), columns={})
    path = write(tmp_path / "both.csv", both)
    done = train("--unlabeled", path, status=5)
    shared = sorted({*both.names} & {*open_data(["digits:train"], limit=LABELLED).names})
    assert len(shared) > 1
    expected = f"{len(shared)} names stand in DATA and in --unlabeled"
    assert expected in done.stderr
    assert f"the first is {shared[0].decode()}" in done.stderr


def test_the_maker_of_pseudo_labels_is_told_by_their_history() -> None:
    def step(command: str, **inputs: str) -> history.Record:
        listed = [{"option": o, "name": n, "digest": f"{n}-digest"} for o, n in inputs.items()]
        return {"command": command, "inputs": listed}

    first = step("embed", model="first.safetensors", data="photos")
    steps = (first, step("pseudolabel", embeddings="a.h5"))
    second = step("embed", model="second.safetensors", data="photos")
    assert describe_maker(steps).startswith("pseudo-labels from vectors of first.safetensors (firs")
    again = (*steps, step("train", data="x"), second, step("pseudolabel", embeddings="b.h5"))
    assert "second.safetensors" in describe_maker(again)
    assert "does not say" in describe_maker(())
    assert "does not say" in describe_maker((first,))  # labels of its own, not pseudo-labels
    assert "do not say which model" in describe_maker((step("pseudolabel", embeddings="a.h5"),))


def vectors_of(path: Path, *, first: int, space: str = "s" * 64) -> Path:
    labels = np.repeat(np.arange(first, first + 4), 10)
    generator = np.random.default_rng(first)
    vectors = (generator.normal(size=(40, 6)) + 3 * np.eye(20, 6)[labels]).astype(np.float32)
    names = np.array([f"{first}/{n}".encode() for n in range(40)])
    texts = [f"c{label}" for label in labels]
    embeddings.write(path, Embeddings(names, vectors, texts, space=space))
    return path


def test_heads_learn_from_cached_vectors_of_one_space(tmp_path: Path, run: Run) -> None:
    data, pseudo = (vectors_of(tmp_path / f"{n}.h5", first=n) for n in (0, 9))
    output, log = tmp_path / "head.safetensors", tmp_path / "log.jsonl"
    words = ("-a", "vectors", "--dim", 4, "-b", 16, "--epochs", 2, "--threads", 1, "-o", output)
    slade = ("--basis", "slade:warmup=none", "--log", log)
    done = run("train", data, *words, "--unlabeled", pseudo, *slade)
    assert "in steps of 4 x 4" in done.stderr
    assert {*BASIS, "unlabeled/multi-similarity"} < logged(log).keys()
    inputs = history.read(output)[-1]["inputs"]
    digests = [item["digest"] for item in inputs]
    assert digests == [history.digest_of_file(path) for path in (data, pseudo)]
    other = vectors_of(tmp_path / "other.h5", first=9, space="t" * 64)
    done = run("train", data, *words, "--unlabeled", other, status=5)
    assert "takes vectors of the space ssss" in done.stderr
    image_list = pseudo_list(tmp_path / "pseudo.csv")
    assert (
        "holds no vectors" in run("train", data, *words, "--unlabeled", image_list, status=5).stderr
    )


def test_pseudo_labels_of_another_list(tmp_path: Path, run: Run) -> None:
    data, pseudo = (vectors_of(tmp_path / f"{n}.h5", first=n) for n in (0, 9))
    words = ("train", data, "-a", "vectors", "--dim", 4, "-b", 16, "--epochs", 2, "--threads", 1)
    run(*words, "--unlabeled", pseudo, "-o", tmp_path / "same.safetensors")
    read = embeddings.read(pseudo)
    bare = tmp_path / "bare.h5"
    embeddings.write(bare, Embeddings(read.names, read.vectors, space=read.space))
    labels = [read.label_names[label] for label in read.labels]
    names = [name.decode() for name in read.names]
    lines = [f"x.jpg,{name},{text}" for name, text in zip(names, labels, strict=True)]
    (tmp_path / "pseudo.csv").write_text("\n".join(["path,name,label", *lines[::-1]]))
    more = ("--unlabeled", bare, "--unlabeled-labels", tmp_path / "pseudo.csv")
    run(*words, *more, "-o", tmp_path / "list.safetensors")
    one, other = (checkpoint.read(str(tmp_path / f"{n}.safetensors")) for n in ("same", "list"))
    for name, tensor in one.state.items():
        np.testing.assert_array_equal(tensor.numpy(), other.state[name].numpy())
    step = history.read(tmp_path / "list.safetensors")[-1]
    options = [item["option"] for item in step["inputs"]]
    assert options == ["data", "--unlabeled", "--unlabeled-labels"]
    done = run(*words, *more[2:], "-o", tmp_path / "x", status=2)
    assert "--unlabeled-labels needs --unlabeled" in done.stderr
