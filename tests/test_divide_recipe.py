"""The recipes of divide and conquer with a tiny network: rounds of files, published settings."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from made_trees import make_vehicleid
from served_program import serve_recipe

RECIPES = Path(__file__).parent.parent / "recipes"
COUNTS = """
from mltool.datasets import vehicleid
vehicleid.COUNTS = {"train": (24, 4), "test-800": (12, 2), "test-1600": (18, 3)}
vehicleid.COUNTS |= {"test-2400": (24, 4)}
"""
NETWORK = "--arch test_resnet --image-size 16 --resize 16"
KINDS = [
    "margin",
    "slices-2",
    "slices-2-once",
    "slices-2-random",
    "slices-2-undivided",
    "masks-learn",
]
# stands for a machine that goes away: the call of this number is not answered
FAILING = """#!/bin/bash
calls=$(($(cat {count} 2>/dev/null || echo 0) + 1))
echo $calls > {count}
if [[ $calls == {last} ]]; then exit 75; fi
exec {program} "$@"
"""

Make = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Start the program on trees of other counts; yields what stands for `mltool`."""
    with serve_recipe(tmp_path_factory.mktemp("served"), COUNTS) as path:
        yield path


@pytest.fixture
def make(tmp_path: Path, program: Path) -> Make:
    def call(target: str, **words: object) -> subprocess.CompletedProcess:
        venv = Path(sys.executable).parent.parent
        usual = {
            "RUN": tmp_path / "run",
            "DIVIDE_TABLES": tmp_path,
            "VENV": venv,
            "MLTOOL": program,
        }
        settings = [f"{key}={value}" for key, value in (usual | words).items()]
        command = ["make", "-C", str(RECIPES), "-o", f"{venv}/installed", target, *settings]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    return call


def read_lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


SHORT = "epochs=2 round=1 full=2 merge=2"
DIGITS = {
    "DIVIDE_DIGITS": f"{NETWORK} --dim 8",
    "DIVIDE_LIMIT": "--limit 150 -j 0",
    "DIVIDE_ABLATIONS": "",
    "DIVIDE_COURSE": "epochs=3 round=1 full=1 merge=2",
}


@pytest.mark.slow
def test_every_row_runs_from_end_to_end(tmp_path: Path, make: Make) -> None:
    done = make("divide-digits", **DIGITS, DIVIDE_ROWS=" ".join(KINDS))
    assert done.returncode == 0, done.stderr
    lines = read_lines(tmp_path / "divide_digits.jsonl")
    assert [line["run"] for line in lines] == KINDS
    assert all(0 < line["map@r"] <= 1 and line["queries"] == 150 for line in lines)
    folder = tmp_path / "run" / "divide" / "digits"
    assert len({line["map@r"] for line in lines}) > len(KINDS) // 2  # rows are not one run
    assert not (folder / "slices-2-once-0-from-1.csv").exists()
    clusters = {at: (folder / f"slices-2-undivided-0-from-{at}.csv").read_text() for at in range(3)}
    assert len(set(clusters.values())) == 3
    again = make("divide-digits", **DIGITS, DIVIDE_ROWS=" ".join(KINDS))
    assert again.returncode == 0, again.stderr  # all rows are there: nothing is run
    assert len(read_lines(tmp_path / "divide_digits.jsonl")) == len(KINDS)


@pytest.mark.slow
def test_an_interrupted_course_goes_on(tmp_path: Path, make: Make, program: Path) -> None:
    words = DIGITS | {"DIVIDE_ROWS": "masks-learn", "DIVIDE_COURSE": SHORT}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    assert make("divide-digits", **words, DIVIDE_TABLES=whole, RUN=whole).returncode == 0
    for last in (3, 8):
        script, count = tmp_path / "failing", tmp_path / "count"
        count.unlink(missing_ok=True)
        script.write_text(FAILING.format(count=count, last=last, program=program))
        script.chmod(0o755)
        done = make("divide-digits", **words, DIVIDE_TABLES=broken, RUN=broken, MLTOOL=script)
        assert done.returncode != 0
        assert not (broken / "divide_digits.jsonl").exists()
    done = make("divide-digits", **words, DIVIDE_TABLES=broken, RUN=broken)
    assert done.returncode == 0, done.stderr
    (one,), (other,) = (read_lines(path / "divide_digits.jsonl") for path in (whole, broken))
    assert one.pop("seconds") >= 0 <= other.pop("seconds")
    assert one == other


@pytest.mark.slow
def test_the_papers_settings_run_from_end_to_end(tmp_path: Path, make: Make) -> None:
    make_vehicleid(tmp_path / "vehicleid")
    done = make(
        "divide-vehicleid",
        DATA=tmp_path / "vehicleid",
        PAPER_NETWORK="--arch test_resnet",
        PAPER_SIZES="--image-size 16 --resize 16",
        PAPER_OPTIONS="--batch-size 8 -j 0",
        PAPER_2019="epochs=2 round=1 full=1 merge=2",
        PAPER_2021="epochs=2 round=1 full=2 merge=2",
        PAPER_LEAST=1,
        PAPER_DIM=8,
        PAPER_K=2,
        VEHICLES=1600,
    )
    assert done.returncode == 0, done.stderr
    lines = read_lines(tmp_path / "divide_vehicleid.jsonl")
    assert [line["run"] for line in lines] == ["margin", "slices-2", "masks-fixed", "masks-learn"]
    assert all(line["queries"] == 18 and 0 <= line["map@r"] <= 1 for line in lines)
