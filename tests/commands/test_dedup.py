"""`mltool dedup` from the shell: pairs of images and of vectors."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.history import read as read_history


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five pictures; `b` equals `d`, and `c` is `a` made smaller."""
    root = tmp_path_factory.mktemp("dedup")
    (root / "images").mkdir()
    rng = np.random.default_rng(0)
    pictures = {
        name: Image.fromarray(rng.integers(0, 256, (5, 5, 3), np.uint8)).resize((60, 50))
        for name in "abe"
    }
    pictures["c"] = pictures["a"].resize((48, 40), Image.Resampling.BOX)
    for name, picture in pictures.items():
        picture.save(root / "images" / f"{name}.png")
    pictures["b"].save(root / "images" / "d.bmp")
    vectors = rng.standard_normal((5, 6))
    vectors[3] = 2 * vectors[1]
    for name, metric in (("cosine", "cosine"), ("euclidean", "euclidean")):
        rows = Embeddings(list("abcde"), vectors, metric=metric)
        embeddings.write(root / f"{name}.h5", rows)
    return root


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def test_pairs_of_images(call, folder, tmp_path):
    done = call("dedup", folder / "images", "-o", tmp_path / "pairs.csv")
    header, *rows = read(tmp_path / "pairs.csv")
    assert header == ["group", "first", "second", "score", "same"]
    assert [[*row[:3], row[4]] for row in rows] == [
        ["0", "a.png", "c.png", "0"],
        ["1", "b.png", "d.bmp", "1"],
    ]
    assert 0.98 <= float(rows[0][3]) < 1
    assert float(rows[1][3]) == 1
    assert "2 pairs, 1 of them of equal pixels, in 2 groups; surplus: 2 of 5" in done.stderr
    step = read_history(tmp_path / "pairs.csv")[-1]
    assert step["settings"]["min_score"] == 0.98
    assert step["counts"] == {"images": 5, "pairs": 2, "groups": 2}


def test_pairs_of_vectors(call, folder, tmp_path):
    call("dedup", folder / "cosine.h5", "-o", tmp_path / "pairs.csv")
    assert read(tmp_path / "pairs.csv") == [
        ["group", "first", "second", "score"],
        ["0", "b", "d", "1.000000"],
    ]
    words = ("-o", tmp_path / "all.csv", "--min-score", -1)
    call("dedup", folder / "cosine.h5", *words)
    assert len(read(tmp_path / "all.csv")) == 1 + 10
    call("dedup", folder / "cosine.h5", *words, "--limit", 3)
    assert len(read(tmp_path / "all.csv")) == 1 + 3


def test_a_distance_must_be_said(call, folder, tmp_path):
    words = ("dedup", folder / "euclidean.h5", "-o", tmp_path / "pairs.csv")
    assert "say with --min-score" in call(*words, status=2).stderr
    call(*words, "--min-score", -100)
    scores = [float(row[3]) for row in read(tmp_path / "pairs.csv")[1:]]
    assert len(scores) == 10
    assert max(scores) < 0


def test_images_and_vectors_do_not_mix(call, folder, tmp_path):
    done = call(
        "dedup", folder / "cosine.h5", folder / "images", "-o", tmp_path / "p.csv", status=5
    )
    assert "either images or vectors" in done.stderr


def test_too_little_memory_for_the_pictures(call, folder, tmp_path):
    words = ("dedup", folder / "images", "-o", tmp_path / "p.csv", "--max-memory", "4K")
    assert "raise --max-memory" in call(*words, status=6).stderr


def test_unreadable_images(call, folder, tmp_path):
    for path in (folder / "images").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / "broken.png").write_bytes(b"none")
    output = tmp_path / "p.csv"
    assert "broken.png" in call("dedup", tmp_path, "-o", output, status=5).stderr
    assert not output.exists()
    call("dedup", tmp_path, "-o", output, "--on-bad-image", "skip", status=3)
    assert len(read(output)) == 1 + 2
    call("dedup", tmp_path, "-o", output, "--on-bad-image", "ignore")
    assert len(read(output)) == 1 + 2
