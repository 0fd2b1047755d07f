"""The recipes are sound make files, and their targets say what they need."""

import subprocess
from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"
ROOTS = ("DATA=/data", "WEIGHTS=/weights.safetensors", "OXFORD=/oxford", "PARIS=/paris")


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
