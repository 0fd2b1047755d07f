"""The recipe of SLADE with the papers' settings: a tiny network, trees of official layout."""

import csv
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_trees import draw, make_cub, write
from served_program import serve_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
RELABEL = RECIPES / "relabel.py"
COUNTS = """
from mltool.datasets import cub200, nabirds
cub200.COUNTS = {"train": (24, 4), "test": (12, 2)}
nabirds.COUNTS = {"train": (12, 3), "test": (12, 3)}
"""


def make_nabirds(folder: Path) -> None:
    """Three other birds, eight images each."""
    names = [f"{c:04}/{c}{n}.jpg" for c in (7, 8, 9) for n in range(8)]
    for number, name in enumerate(names):
        draw(folder / "images" / name, int(name[:4]), number)
    ids = [f"{n:02}-a" for n in range(len(names))]
    write(folder / "images.txt", *map(" ".join, zip(ids, names, strict=True)))
    labels = (f"{image} {int(name[:4])}" for image, name in zip(ids, names, strict=True))
    write(folder / "image_class_labels.txt", *labels)
    write(folder / "train_test_split.txt", *(f"{image} {n % 2}" for n, image in enumerate(ids)))
    write(folder / "classes.txt", "0 Birds", *(f"{c} Bird {c}" for c in (7, 8, 9)))


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Path]:
    """Start the program on trees of other counts; yields what stands for `mltool`."""
    with serve_recipe(tmp_path, COUNTS) as path:
        yield path


@pytest.mark.slow
def test_the_slides_settings_run_from_end_to_end(tmp_path: Path, program: Path) -> None:
    make_cub(tmp_path / "cub")
    make_nabirds(tmp_path / "nabirds")
    venv = Path(sys.executable).parent.parent
    words = {
        "DATA": tmp_path / "cub",
        "UNLABELED": tmp_path / "nabirds",
        "RUN": tmp_path / "run",
        "SLADE_TABLES": tmp_path,
        "VENV": venv,
        "MLTOOL": program,
        "SLIDES_FOLDS": 2,
        "SLIDES_LOSSES": "contrastive",
        "SLIDES_INITS": "swav",
        "SLIDES_K": 3,
        "SLIDES_EPOCHS": 1,
        "SLIDES_PRETRAIN": "--epochs 1 -b 16 -j 0",
        "SLIDES_NETWORK": "--arch test_resnet",
        "SLIDES_SIZES": "--image-size 16 --resize 16",
        "SLIDES_OPTIONS": "--dim 8 --pooling avg --projection linear --batch-size 8 -j 0",
    }
    settings = [f"{key}={value}" for key, value in words.items()]
    command = ["make", "-C", str(RECIPES), "-o", f"{venv}/installed", "slade-cub200", *settings]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = [
        json.loads(line) for line in (tmp_path / "slade_cub200.jsonl").read_text().splitlines()
    ]
    assert [line["run"] for line in lines] == ["swav/contrastive/T", "swav/contrastive/S"]
    assert [line["rounds"] for line in lines] == [0, 1]
    assert all(line["queries"] == 12 and 0 <= line["map@r"] <= 1 for line in lines)
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    assert again.returncode == 0, again.stderr  # all rows are there: nothing is run
    assert len((tmp_path / "slade_cub200.jsonl").read_text().splitlines()) == 2


@pytest.fixture
def listed(tmp_path: Path) -> Path:
    """Write a list of pseudo-labels; the class of its last image is unknown."""
    path = tmp_path / "pseudo.csv"
    rows = [f"{n}.jpg,{n // 3},{'xyz'[n % 3] if n < 11 else ''}" for n in range(12)]
    write(path, "path,label,truth", *rows)
    return path


def relabel(source: Path, *words: str) -> list[dict[str, str]]:
    target = source.parent / "out.csv"
    subprocess.run([sys.executable, RELABEL, source, target, *words], check=True)
    with open(target, newline="") as file:
        return list(csv.DictReader(file))


def test_shuffled_labels_keep_the_sizes_of_clusters(listed: Path) -> None:
    one, again, other = (relabel(listed, "--shuffle", seed) for seed in ("1", "1", "2"))
    labels = [row["label"] for row in one]
    assert one == again != other
    assert sorted(labels) == sorted(str(n // 3) for n in range(12))
    assert labels != [str(n // 3) for n in range(12)]
    assert [row["path"] for row in one] == [f"{n}.jpg" for n in range(12)]


def test_shuffled_clusters_keep_the_labels(tmp_path: Path) -> None:
    source = tmp_path / "split.csv"
    write(source, "path,label,cluster", *(f"{n}.jpg,{n % 5},{n // 3}" for n in range(12)))
    rows = relabel(source, "--shuffle", "1", "--column", "cluster")
    assert [(row["path"], row["label"]) for row in rows] == [
        (f"{n}.jpg", str(n % 5)) for n in range(12)
    ]
    clusters = [row["cluster"] for row in rows]
    assert sorted(clusters) == sorted(str(n // 3) for n in range(12))
    assert clusters != [str(n // 3) for n in range(12)]


def test_true_labels_are_those_of_known_images(listed: Path) -> None:
    rows = relabel(listed, "--truth")
    assert [row["label"] for row in rows] == ["xyz"[n % 3] for n in range(11)]
