"""Every benchmark runs with `--smoke`, which keeps no result."""

from pathlib import Path

import pytest

RECIPES = Path(__file__).parent.parent / "recipes"
SCRIPTS = sorted((RECIPES / "bench").glob("[a-z]*.py"))


def read_results() -> dict[str, bytes]:
    """Return the content of every file of results."""
    return {path.name: path.read_bytes() for path in (RECIPES / "results").iterdir()}


@pytest.mark.slow
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_a_smoke_run_measures_and_keeps_nothing(script: Path, run) -> None:
    before = read_results()
    done = run("--smoke", script=script)
    lines = done.stdout.splitlines()
    assert any(line.startswith('{"benchmark": ') or "  ratio" in line for line in lines)
    assert read_results() == before
