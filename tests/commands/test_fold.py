"""`--fold I/N`: classes of the data are held out to validate on."""

from pathlib import Path

import numpy as np
import pytest

from mltool.files import embeddings, history, safetensors_file
from mltool.files.embeddings import Embeddings
from mltool.models import checkpoint

QUICK = ("-a", "vectors", "--dim", 4, "--epochs", 3, "-b", 20, "--threads", 1, "--lr", 0.01)
TEXTS = ["10", "9", "b", "a", "c", "B", "é"]  # sorted as texts: 10 9 B a b c é


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Vectors of seven classes, ten each, and two without a label."""
    folder = tmp_path_factory.mktemp("fold")
    generator = np.random.default_rng(0)
    labels = [*np.tile(TEXTS, 10).tolist(), "", ""]
    centres = {text: generator.standard_normal(12) for text in [*TEXTS, ""]}
    vectors = np.array([centres[text] + generator.standard_normal(12) for text in labels])
    names = [f"{row:03}.jpg" for row in range(len(labels))]
    embeddings.write(folder / "whole.h5", Embeddings(names, vectors, labels, space="5" * 64))
    return folder / "whole.h5"


def take(whole: Path, name: str, texts: set[str]) -> Path:
    read = embeddings.read(whole)
    labels = [read.label_names[label] if label >= 0 else "" for label in read.labels]
    rows = np.flatnonzero([text in texts for text in labels])
    path = whole.parent / name
    kept = Embeddings(
        read.names[rows], read.vectors[rows], [labels[row] for row in rows], space="5" * 64
    )
    embeddings.write(path, kept)
    return path


@pytest.mark.parametrize("command", ["train", "distill"])
def test_a_fold_is_the_same_as_two_files(command, whole, tmp_path, call) -> None:
    words = ["--teacher", whole] if command == "distill" else []
    words += ["--loss", "rkd" if command == "distill" else "contrastive", *QUICK]
    held = take(whole, "held.h5", {"a", "b"})
    unlabelled = {""} if command == "distill" else set()  # this loss has a use for them
    rest = take(whole, "rest.h5", {"10", "9", "B", "c", "é"} | unlabelled)
    done = call(command, whole, *words, "--fold", "1/3", "-o", tmp_path / "fold.safetensors")
    assert "fold 1 of 3: 2 classes are held out, a to b; 5 are learned" in done.stderr
    assert "validation: 20 images, 2 classes" in done.stderr
    call(command, rest, *words, "--val", held, "-o", tmp_path / "files.safetensors")
    one, other = (checkpoint.read(str(tmp_path / f"{n}.safetensors")) for n in ("fold", "files"))
    for name, tensor in one.state.items():
        np.testing.assert_array_equal(tensor.numpy(), other.state[name].numpy())
    meta = safetensors_file.read_meta(tmp_path / "fold.safetensors")
    assert sorted(meta["classes"]) == ["10", "9", "B", "c", "é"]
    settings = history.read(tmp_path / "fold.safetensors")[-1]["settings"]
    assert settings["fold"] == "1/3"
    assert settings["select"] == "map@r"
    lines = call("info", "--history", tmp_path / "fold.safetensors").stdout
    assert "--fold 1/3" in lines
    assert "--val" not in lines.replace("--val-every", "")


def test_images_of_a_fold_belong_to_the_recorded_list(tmp_path, call) -> None:
    words = ("digits", "--classes", "0-3", "--limit", 60, "--arch", "test_resnet")
    words += ("--image-size", 16, "--dim", 4, "--epochs", 1, "-b", 8, "-j", 0, "-d", "cpu")
    for name, more in {
        "all": ["--split", "all"],
        "fold": ["--split", "all", "--fold", "0/2"],
    }.items():
        call("train", *words, *more, "-o", tmp_path / f"{name}.safetensors")
    steps = [history.read(tmp_path / f"{name}.safetensors")[-1] for name in ("all", "fold")]
    digests = [step["inputs"][0]["digest"] for step in steps]
    assert digests[0] == digests[1]  # another held-out image makes the output stale
    assert steps[1]["counts"]["images"] < steps[0]["counts"]["images"] == 60
    assert "fold" not in steps[0]["settings"]


def test_what_is_no_fold(whole, tmp_path, call) -> None:
    out = tmp_path / "x.safetensors"
    for words, status, message in (
        (["--fold", "3/3"], 2, "I from 0 to N - 1"),
        (["--fold", "0/1"], 2, "leaves no class to learn"),
        (["--fold", "0/2", "--val", whole], 2, "leave out --val"),
        (["--patience", 3], 2, "--patience needs --val or --fold"),
        (["--fold", "0/9"], 5, "7 classes cannot be cut into 9 folds"),
    ):
        done = call("train", whole, *QUICK, *words, "-o", out, status=status)
        assert message in " ".join(done.stderr.split())
    call("train", whole, *QUICK, "--fold", "0/2", "--patience", 1, "-o", out)
