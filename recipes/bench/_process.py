"""Runs of the program and of scripts: seconds, peak memory and what they print."""

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
    cpu_seconds: float  # of all its threads


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
    cpu_seconds = usage.ru_utime + usage.ru_stime
    return Measured(seconds, usage.ru_maxrss / 1024, output, cpu_seconds)


def run_mltool(*words: object) -> Measured:
    """Run `mltool WORDS` in a new process."""
    return run([sys.executable, "-m", "mltool", *words])


def run_script(name: str, *words: object) -> Measured:
    """Run a script of this folder in a new process."""
    return run([sys.executable, FOLDER / name, *words])


def call_mltool(*words: object) -> float:
    """Run `mltool WORDS` in this process, which has imported everything; return the seconds.

    Raises SystemExit when it fails, its message being on stderr.
    """
    from mltool.cli import main

    sys.argv = ["mltool", *map(str, words)]
    start = time.perf_counter()
    try:
        main()
    except SystemExit as end:
        if end.code:
            raise
    return time.perf_counter() - start
