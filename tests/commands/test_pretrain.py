"""`pretrain` from the shell: images without labels to a backbone that `train` goes on from."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mltool.engine.probe import Probe
from mltool.files import safetensors_file
from mltool.files.history import shell_lines
from mltool.models import checkpoint

TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "-j", 0, "-d", "cpu")
SHORT = (*TINY, "--preset", "none", "--epochs", 1, "-b", 20, "--threads", 1)
METHODS = {
    "swav": "swav:hidden=8,dim=8,prototypes=6",
    "moco": "moco:hidden=8,dim=8",
    "byol": "byol:hidden=8,dim=8",
    "simclr": "simclr:hidden=8,dim=8",
}


@pytest.fixture(scope="module")
def unlabelled(tmp_path_factory: pytest.TempPathFactory, photos: Path) -> Path:
    """Write a list of photographs without labels."""
    path = tmp_path_factory.mktemp("unlabelled") / "list.csv"
    paths = sorted(photos.rglob("*.jpg"))
    path.write_text("\n".join(["path", *map(str, paths)]) + "\n")
    return path


@pytest.fixture(scope="module")
def start_model(tmp_path_factory: pytest.TempPathFactory, unlabelled: Path, run) -> Path:
    """Pretrain a tiny backbone by SwAV."""
    path = tmp_path_factory.mktemp("ssl") / "ssl.safetensors"
    run("pretrain", unlabelled, "-o", path, *SHORT, "--method", METHODS["swav"])
    return path


@pytest.mark.parametrize("method", ["moco", "byol", "simclr"])
def test_a_method_writes_a_backbone(tmp_path: Path, unlabelled: Path, run, method: str) -> None:
    output = tmp_path / "m.safetensors"
    done = run("pretrain", unlabelled, "-o", output, *SHORT, "--method", METHODS[method])
    assert "40 images" in done.stderr
    saved = checkpoint.read(str(output))
    assert (saved.spec.pooling, saved.spec.projection) == ("avg", "none")
    assert saved.spec.dim == saved.spec.channels
    assert saved.classes == ()
    settings = saved.history[-1]["settings"]
    assert settings["method"].startswith(f"{method}:")
    assert "small=0" in settings["augment"]
    assert not {"preset", "pooling", "dim", "probe_every", "loss"} & settings.keys()


def test_the_same_seed_gives_the_same_bytes(
    tmp_path: Path, unlabelled: Path, start_model: Path, run
) -> None:
    again = tmp_path / "again.safetensors"
    run("pretrain", unlabelled, "-o", again, *SHORT, "--method", METHODS["swav"])
    assert again.read_bytes() == start_model.read_bytes()
    before = again.stat().st_mtime_ns
    words = ("pretrain", unlabelled, "-o", again, *SHORT, "--method", METHODS["swav"], "--resume")
    assert "finished already" in run(*words).stderr
    assert again.stat().st_mtime_ns == before
    run(*words, "--seed", 1, status=0)
    assert again.read_bytes() != start_model.read_bytes()


def test_the_shell_line_of_the_history_makes_it_again(
    tmp_path: Path, unlabelled: Path, start_model: Path, run
) -> None:
    line = run("info", "--history", start_model).stdout
    assert line.startswith("mltool pretrain ")
    assert "--preset none" in line
    (words,) = shell_lines(checkpoint.read(str(start_model)).history)
    assert "--method swav:prototypes=6" in words


def test_train_goes_on_from_it(tmp_path: Path, photos: Path, start_model: Path, run) -> None:
    output = tmp_path / "m.safetensors"
    words = ("train", photos, "--init", start_model, "-o", output, "-j", 0, "-d", "cpu")
    done = run(*words, "--epochs", 0, "--dim", 12, "--pooling", "gem")
    saved, start = checkpoint.read(str(output)), checkpoint.read(str(start_model))
    assert (saved.spec.projection, saved.spec.dim, saved.spec.pooling[:3]) == ("linear", 12, "gem")
    backbone = [key for key in saved.state if key.startswith("backbone.")]
    assert all(np.array_equal(saved.state[key], start.state[key]) for key in backbone)
    assert "after.weight" in done.stderr
    plain = run(*words, "--epochs", 0)
    assert checkpoint.read(str(output)).spec.projection == "none"
    assert "ssl.safetensors" in plain.stderr


def test_pretraining_goes_on_from_a_trained_model(
    tmp_path: Path, unlabelled: Path, model: Path, run
) -> None:
    output = tmp_path / "m.safetensors"
    words = (*SHORT[4:], "--method", METHODS["moco"], "--epochs", 0)
    done = run("pretrain", unlabelled, "--init", model, "-o", output, *words)
    saved, start = checkpoint.read(str(output)), checkpoint.read(str(model))
    assert saved.spec.projection == "none"
    backbone = [key for key in saved.state if key.startswith("backbone.")]
    assert backbone
    assert all(np.array_equal(saved.state[key], start.state[key]) for key in backbone)
    assert "after.weight" in done.stderr
    assert saved.history[-1]["settings"]["freeze_bn"] is True


def test_a_probe_reports_and_changes_nothing(
    tmp_path: Path, unlabelled: Path, photos: Path, start_model: Path, run
) -> None:
    output, log = tmp_path / "m.safetensors", tmp_path / "log.jsonl"
    words = ("--method", METHODS["swav"], "--probe", photos, "--log", log)
    done = run("pretrain", unlabelled, "-o", output, *SHORT, *words)
    assert output.read_bytes() == start_model.read_bytes()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    values = [line["value"] for line in lines if line["name"] == "probe/knn-accuracy@20"]
    assert len(values) == 1
    assert f"knn-accuracy@20 {values[0]:.4f}" in done.stderr
    assert {"pretext/loss", "pretext/spread", "pretext/rank"} <= {line["name"] for line in lines}


def test_a_probe_is_scikit_learns_vote_without_the_image_itself() -> None:
    from types import SimpleNamespace

    from sklearn.neighbors import KNeighborsClassifier

    random = np.random.default_rng(0)
    labels = np.repeat(np.arange(4), 15)
    vectors = (random.normal(size=(60, 6)) + labels[:, None] * 0.5).astype(np.float32)
    names = np.array([f"{n:02}".encode() for n in range(60)])
    source = SimpleNamespace(manifest=SimpleNamespace(names=names, labels=labels))
    (accuracy,) = Probe(source, 1, 8, "fp32").measure(vectors).values()
    told = [
        KNeighborsClassifier(20, metric="cosine")
        .fit(np.delete(vectors, row, 0), np.delete(labels, row))
        .predict(vectors[row : row + 1])[0]
        for row in range(60)
    ]
    assert accuracy == pytest.approx(np.mean(told == labels))


def test_images_of_a_test_list_are_counted_and_dropped(tmp_path: Path, photos: Path, run) -> None:
    test, output = tmp_path / "test", tmp_path / "m.safetensors"
    test.mkdir()
    Image.open(photos / "class0/0.jpg").save(test / "same.png")
    words = (*SHORT, "--method", METHODS["simclr"], "--check-against", test)
    done = run("pretrain", photos, "-o", output, *words)
    assert "1 of 40 images are the same" in done.stderr
    record = checkpoint.read(str(output)).history[-1]
    assert record["counts"]["overlap_same"] == 1
    assert record["counts"]["images"] == 40
    run("pretrain", photos, "-o", output, *words, "--drop-overlap")
    record = checkpoint.read(str(output)).history[-1]
    assert record["counts"]["images"] == 40 - sum(
        record["counts"][f"overlap_{kind}"] for kind in ("same", "near")
    )
    assert record["settings"]["drop_overlap"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--method", "swaw"), "did you mean swav"),
        (("--method", "moco:queue=0"), "a whole number, 1 or more"),
        (("--method", "moco", "--augment", "views"), "moco takes 2 views of an image"),
        (("--augment", "views:large=1"), "two large views"),
        (("--augment", "center"), "would be equal"),
        (("--arch", "vectors"), "takes images"),
        (("--drop-overlap",), "--drop-overlap needs --check-against"),
        (("--weights", "timm", "--init", "x"), "leave out --weights"),
        (("--preset", "smal"), "did you mean small"),
    ],
)
def test_wrong_usage(call, words: tuple, message: str) -> None:
    done = call("pretrain", "digits:train", "-o", "x.safetensors", *words, status=2)
    assert message in done.stderr


def test_fewer_images_than_a_batch_make_one_batch(tmp_path: Path, run) -> None:
    words = (*TINY, "--preset", "none", "--epochs", 1, "--limit", 7, "--method", METHODS["simclr"])
    done = run("pretrain", "digits:train", "-o", tmp_path / "m.safetensors", *words)
    assert "1 steps of 7 random images" in done.stderr


def test_a_dry_run_writes_nothing(tmp_path: Path, unlabelled: Path, run) -> None:
    output = tmp_path / "m.safetensors"
    done = run("pretrain", unlabelled, "-o", output, *SHORT, "--method", METHODS["moco"], "-n")
    assert "would write" in done.stderr
    assert not output.exists()


def test_heads_are_kept_under_objective(start_model: Path) -> None:
    arrays, _ = safetensors_file.read(str(start_model))
    heads = {key.split(".")[4] for key in arrays if key.startswith("objective.")}
    assert heads == {"projector", "prototypes"}
    assert not [key for key in arrays if "encoder" in key or "queue" in key]


@pytest.mark.parametrize("preset", ["small", "imagenet"])
@pytest.mark.parametrize("method", METHODS)
def test_every_method_has_presets(tmp_path: Path, run, preset: str, method: str) -> None:
    output = tmp_path / "m.safetensors"
    words = ("--preset", preset, "--method", method, "-n", "-v", "--limit", 40)
    done = run("pretrain", "digits:train", "-o", output, *TINY, *words)
    assert "would write" in done.stderr
    assert " 20 epochs" not in done.stderr
