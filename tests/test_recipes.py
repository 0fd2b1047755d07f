"""The recipes are sound make files, and their targets say what they need."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mltool.files import embeddings

RECIPES = Path(__file__).parent.parent / "recipes"
ROOTS = (
    "DATA=/data",
    "UNLABELED=/more",
    "WEIGHTS=/weights.safetensors",
    "OXFORD=/oxford",
    "PARIS=/paris",
)


def make(*words: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        ["make", "-C", str(RECIPES), *words], capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    "target",
    [
        "quickstart",
        "test",
        "bench",
        "omniglot",
        "caltech101",
        "losses-caltech101",
        "losses-omniglot",
        "heads-grocery40",
        "heads-caltech101",
        "slade-heads-grocery40",
        "slade-heads-caltech101",
        "slade-choose-grocery40",
        "slade-choose-caltech101",
        "slade-grocery40",
        "slade-caltech101",
        "slade-omniglot",
        "slade-cub200",
        "slade-cars196",
        "slade-inshop",
        "divide-digits",
        "divide-heads-grocery40",
        "divide-heads-caltech101",
        "divide-choose-grocery40",
        "divide-choose-caltech101",
        "divide-grocery40",
        "divide-caltech101",
        "divide-omniglot",
        "divide-cub200",
        "divide-cars196",
        "divide-sop",
        "divide-inshop",
        "divide-vehicleid",
        "metrix-digits",
        "metrix-omniglot",
        "metrix-caltech101",
        "metrix-cub200",
        "metrix-cars196",
        "metrix-sop",
        "metrix-inshop",
        "aml-digits",
        "aml-omniglot",
        "aml-caltech101",
        "aml-sfm120k",
        "embedding-transfer-digits",
        "embedding-transfer-omniglot",
        "embedding-transfer-caltech101",
        "embedding-transfer-cub200",
        "embedding-transfer-cars196",
        "embedding-transfer-sop",
        "defaults-grocery40",
        "defaults-caltech101",
        "defaults-omniglot",
        "defaults-caltech101-scratch",
        "bare-grocery40",
        "bare-caltech101",
        "bare-omniglot",
    ],
)
def test_targets_expand(target: str) -> None:
    done = make("--dry-run", target, *ROOTS)
    assert done.returncode == 0, done.stderr


def test_help_lists_the_targets() -> None:
    out = make("help").stdout
    assert "quickstart" in out
    assert "test" in out


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.mk")), ids=lambda p: p.name)
def test_recipe_says_what_it_is(path: Path) -> None:
    assert path.read_text().startswith("# ")


def test_plain_loop_embeds_what_it_has_not_learned(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    for label in range(4):
        folder = tmp_path / "photos" / str(label)
        folder.mkdir(parents=True)
        for number in range(6):
            pixels = generator.integers(0, 256, (40, 48, 3), np.uint8)
            Image.fromarray(pixels).save(folder / f"{number}.png")
    words = ["photos", "photos", "--classes", "0-1", "--test-classes", "2-3", "-o", "test.h5"]
    words += ["--arch", "test_resnet", "--size", "32", "--epochs", "1", "--lr", "1e-3"]
    done = subprocess.run(
        [sys.executable, str(RECIPES / "plain_loop.py"), *words, "--seed", "0"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    vectors = embeddings.read(tmp_path / "test.h5")
    assert vectors.vectors.shape == (12, 512)
    assert set(vectors.labels) == {0, 1}
