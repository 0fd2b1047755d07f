"""Whole processes, measured from outside: seconds, peak memory and what they print."""

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent


@dataclass(frozen=True)
class Measured:
    """One finished process."""

    seconds: float
    peak_mib: float  # largest resident set, mapped files included
    stdout: str


def run(command: Sequence[object]) -> Measured:
    """Run a command to its end. Raises CalledProcessError when it fails."""
    words = [str(word) for word in command]
    start = time.perf_counter()
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    with process.stdout:
        output = process.stdout.read()
    # wait4 is the only call that tells the memory of this one child
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, words, output)
    return Measured(seconds, usage.ru_maxrss / 1024, output)


def mltool(*words: object) -> Measured:
    """Run `mltool ...`."""
    return run([sys.executable, "-m", "mltool", *words])


def script(name: str, *words: object) -> Measured:
    """Run a script of this folder."""
    return run([sys.executable, FOLDER / name, *words])
