"""`pretrain` and `distill` in several files."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mltool.files import safetensors_file

Run = Callable[..., subprocess.CompletedProcess]
TINY = ("--arch", "test_resnet", "--image-size", 16, "--resize", 16, "-j", 0, "-b", 20)
SHORT = (*TINY, "--threads", 1, "-d", "cpu", "--limit", 60, "--epochs", 2)


def carry_out(run: Run, folder: Path, *command: object) -> list[dict[str, np.ndarray]]:
    """Run a course at once and in two files; return the tensors of both ends."""
    words = (*command, "digits:train", *SHORT, "--save-optimizer", "-o")
    whole, half, end = (folder / f"{name}.safetensors" for name in ("whole", "half", "end"))
    run(*words, whole)
    run(*words, half, "--to-epoch", 1)
    run(*words, end, "--init", half, "--keep-optimizer", "--from-epoch", 1)
    return [safetensors_file.read(path)[0] for path in (whole, end)]


@pytest.mark.parametrize("method", ["moco:queue=40", "byol"])
def test_a_pretext_goes_on_from_a_file(tmp_path: Path, run: Run, method: str) -> None:
    whole, end = carry_out(run, tmp_path, "pretrain", "--method", method)
    assert whole.keys() == end.keys()
    assert all(np.array_equal(value, end[name]) for name, value in whole.items())


def test_a_student_goes_on_from_a_file(tmp_path: Path, run: Run) -> None:
    teacher = tmp_path / "teacher.h5"
    run("embed", "pixels", "digits:train", "--limit", 60, "-j", 0, "-o", teacher)
    words = ("distill", "--teacher", teacher, "--loss", "rkd", "--dim", 8)
    whole, end = carry_out(run, tmp_path, *words)
    assert whole.keys() == end.keys()
    assert all(np.array_equal(value, end[name]) for name, value in whole.items())
