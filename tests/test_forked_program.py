"""A fork of the program does what a new Python does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--dim", 16, "-j", 0, "-b", 20)


@pytest.mark.slow
def test_a_fork_writes_the_bytes_of_a_new_process(tmp_path: Path, photos: Path, run, spawn) -> None:
    vectors, files = tmp_path / "x.h5", {}
    matrix = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    embeddings.write(vectors, Embeddings([f"{row:03d}" for row in range(200)], matrix))
    for name, call in (("fork", run), ("new", spawn)):
        folder = tmp_path / name
        folder.mkdir()
        call("train", photos, *TINY, "--epochs", 1, "-o", "m.safetensors", cwd=folder)
        call("index", vectors, "-o", "x.index", "--type", "hnsw:links=4", cwd=folder)
        files[name] = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert files["fork"] == files["new"]
    assert len(files["new"]) == 2


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (["list", "losses"], 0),
        (["--help"], 0),
        (["trian"], 2),
        (["pack", "-", "-o", "x.h5", "--dry-run"], 0),
        (["info", "none.h5"], 5),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else str(value),
)
def test_text_and_status_are_those_of_a_new_process(
    tmp_path: Path, photos: Path, run, spawn, words: list[str], status: int
) -> None:
    listing = "\n".join(map(str, sorted(photos.rglob("*.jpg"))))
    first, second = (
        call(*words, cwd=tmp_path, input=listing, status=status) for call in (run, spawn)
    )
    assert (first.stdout, first.stderr) == (second.stdout, second.stderr)


def test_the_environment_is_the_one_given(photos: Path, tmp_path: Path, run) -> None:
    words = ("embed", "pixels", photos, "-o", tmp_path / "x.h5", "--dry-run")
    done = run(*words, env=os.environ | {"MLTOOL_EMBED_LIMIT": "-1"}, status=None)
    assert done.returncode != 0
    assert "limit" in done.stderr
    run(*words)
    assert "MLTOOL_EMBED_LIMIT" not in os.environ


def test_nothing_of_one_run_is_left_to_the_next(photos: Path, tmp_path: Path, run) -> None:
    loud = ("embed", "pixels", photos, "-o", tmp_path / "x.h5", "--dry-run")
    expected = run(*loud).stderr
    assert expected
    assert run(*loud, "--quiet").stderr == ""
    assert run(*loud).stderr == expected


def test_a_run_that_hangs_is_killed(photos: Path, tmp_path: Path, start) -> None:
    program = start("train", photos, *TINY, "--epochs", 10**6, "-o", tmp_path / "m.safetensors")
    assert program.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        program.wait(timeout=0.5)
    assert program.returncode == -signal.SIGKILL


def test_runs_beside_each_other(photos: Path, tmp_path: Path, start) -> None:
    long, short = (
        start("train", photos, *TINY, "--epochs", epochs, "-o", tmp_path / f"{epochs}.safetensors")
        for epochs in (10**6, 0)
    )
    assert short.communicate()[1]
    assert short.returncode == 0
    assert long.poll() is None
    long.kill()
    assert long.wait(timeout=60) == -signal.SIGKILL


def test_an_error_nobody_catches_is_printed() -> None:
    code = (
        "import sys; sys.path.insert(0, sys.argv[1])\n"
        "from forked_program import _call_for_status\n"
        "sys.exit(_call_for_status(lambda: 1 / 0) + 1)"
    )
    words = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "ZeroDivisionError: division by zero"
