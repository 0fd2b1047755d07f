"""`train` and `distill` on pairs: of SfM-120k, and declared by `--pairs`."""

import io
import os
import pickle
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import Result

from mltool.datasets import sfm120k
from mltool.engine.mining import Tuples, TupleSampler
from mltool.engine.samplers import Rows
from mltool.files import history

Call = Callable[..., Result]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "-j", 0, "--threads", 1)
TRAIN = {"images": 20, "pairs": 12}


def written(root: Path, colours: np.ndarray, first: int) -> dict[str, list]:
    """One split, each image a JPEG that is named by its id alone."""
    ids = [f"{number:032x}" for number in range(first, first + len(colours))]
    noise = np.random.default_rng(first)
    for key, colour in zip(ids, colours, strict=True):
        pixels = (colour + noise.integers(-20, 20, (40, 48, 3))).clip(0, 255).astype(np.uint8)
        data = io.BytesIO()
        Image.fromarray(pixels).save(data, "JPEG")
        place = root / "ims" / key[-2:] / key[-4:-2] / key[-6:-4] / key
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data.getvalue())
    return {"cids": ids, "cluster": [row // 4 for row in range(len(ids))]}


@pytest.fixture
def sfm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five models of four images; the first three of four models show the same, one has none."""
    monkeypatch.setattr(sfm120k, "COUNTS", {"train": (20, 12), "val": (4, 1)})
    root = tmp_path / "sfm"
    colours = np.random.default_rng(0).integers(0, 255, (6, 3)).repeat(4, axis=0)
    train = written(root, colours[:20], 0x10000)
    train["qidxs"] = [first + a for first in range(0, 16, 4) for a in (0, 0, 1)]
    train["pidxs"] = [first + p for first in range(0, 16, 4) for p in (1, 2, 2)]
    val = written(root, colours[20:], 0x20000) | {"qidxs": [0], "pidxs": [1]}
    data = pickle.dumps({"train": train, "val": val}, protocol=2)
    (root / sfm120k.LISTS).write_bytes(data)
    return root


@pytest.fixture
def teacher(sfm: Path, tmp_path: Path, call: Call) -> Path:
    path = tmp_path / "t.h5"
    call("embed", "pixels", f"sfm120k:{sfm}", "-o", path, "--image-size", 4)
    return path


def last(path: Path) -> dict:
    return history.read(path)[-1]


def test_distilling_on_sfm120k_uses_its_pairs_and_resumes(
    sfm: Path, teacher: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ("distill", f"sfm120k:{sfm}:train", "--teacher", teacher, *TINY, "--epochs", 3)
    words += ("--loss", "contrastive", "--mining", "hard", "--negatives", 2, "-b", 4)
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    done = call(*words, "-o", whole)
    assert "20 images, 5 classes (4 to 4 each, median 4), 12 pairs" in done.stderr
    assert "need not show the same" not in done.stderr
    assert last(whole)["counts"] == TRAIN
    made, seen = TupleSampler.batch, []

    def interrupted(self: TupleSampler, epoch: int, step: int) -> Rows:
        pairs = {tuple(pair) for pair in self.tuples.pairs.tolist()}
        drawn = zip(self.tuples.anchors.tolist(), self.tuples.positives.tolist(), strict=True)
        assert pairs == set(drawn)
        seen.append((epoch, step))
        if (epoch, step) == (1, 1):
            os.kill(os.getpid(), signal.SIGUSR1)
        return made(self, epoch, step)

    with monkeypatch.context() as patch:
        patch.setattr(TupleSampler, "batch", interrupted)
        call(*words, "-o", broken, status=75)
    assert (1, 1) in seen
    assert not broken.exists()
    call(*words, "-o", broken, "--resume")
    assert broken.read_bytes() == whole.read_bytes()


def test_classes_alone_are_possible_but_warned_of(sfm: Path, tmp_path: Path, call: Call) -> None:
    out = tmp_path / "m.safetensors"
    done = call("train", f"sfm120k:{sfm}:train", *TINY, "--epochs", 1, "-b", 8, "-o", out)
    assert "images of one class need not show the same thing: this list declares 12 pairs" in (
        " ".join(done.stderr.split())
    )
    assert last(out)["counts"] == {"images": 20, "classes": 5}


def test_a_file_takes_the_place_of_the_lists_own_pairs(
    sfm: Path, tmp_path: Path, call: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn, draw = [], Tuples.draw

    def noted(self: Tuples, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        anchors, positives, pool = draw(self, epoch)
        drawn.append(sorted(zip(anchors.tolist(), positives.tolist(), strict=True)))
        return anchors, positives, pool

    monkeypatch.setattr(Tuples, "draw", noted)
    own, other = tmp_path / "own.safetensors", tmp_path / "other.safetensors"
    words = ("train", f"sfm120k:{sfm}:train", *TINY, "--epochs", 1, "-b", 8, "--mining", "random")
    words += ("--negatives", 2, "--loss", "contrastive")
    call(*words, "-o", own)
    pairs = tmp_path / "pairs.csv"
    ids = [f"train/{number:032x}" for number in range(0x10000, 0x10014)]
    lines = [f"{ids[row]},{ids[row + 1]}\n" for row in range(0, 20, 2)]
    pairs.write_text("anchor,positive\n" + "".join(lines))
    call(*words, "--pairs", pairs, "-o", other)
    shown = [(n + a, n + p) for n in range(0, 16, 4) for a, p in ((0, 1), (0, 2), (1, 2))]
    assert drawn[0] == shown
    assert drawn[1] == [(row, row + 1) for row in range(0, 20, 2)]
    assert last(own)["counts"]["pairs"] == 12
    assert last(other)["counts"]["pairs"] == 10
    assert last(own)["inputs"][0]["digest"] != last(other)["inputs"][0]["digest"]
    assert "--pairs pairs.csv" in call("info", "--history", other).stdout
    # other pairs are another run: what is finished is not taken for it
    pairs.write_text("anchor,positive\n" + "".join(lines[1:]))
    call(*words, "--pairs", pairs, "-o", other, "--resume")
    assert last(other)["counts"]["pairs"] == 9


@pytest.mark.parametrize("command", [("train",), ("distill", "--teacher", "t.h5")])
def test_pairs_need_mining(command: tuple[str, ...], photos: Path, call: Call) -> None:
    done = call(*command, photos, "--pairs", "p.csv", "-o", "x.safetensors", status=2)
    assert "--pairs needs --mining" in done.stderr


def test_pairs_are_never_the_output(photos: Path, tmp_path: Path, call: Call) -> None:
    pairs = tmp_path / "pairs.csv"
    pairs.write_text("anchor,positive\nclass0/0.jpg,class0/1.jpg\n")
    words = ("train", photos, *TINY, "--mining", "random", "--pairs", pairs, "-b", 8)
    call(*words, "--epochs", 0, "-o", pairs, status=2)
    assert pairs.read_text().startswith("anchor")
    pairs.write_text("anchor,positive\nclass0/0.jpg,class0/none.jpg\n")
    done = call(*words, "-o", tmp_path / "m.safetensors", status=5)
    assert "class0/none.jpg" in done.stderr
