"""How long the shell waits: `--help` of every command, and `evaluate` of a small file.

    python recipes/bench/startup.py

The bound for help is 0.3 s; `import torch` alone is printed beside it.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _arguments
import _report
import numpy as np
import typer

from mltool.cli import app
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings


def time_process(*words: str, rounds: int) -> float:
    """Return the median seconds of a new Python, after one uncounted call if there are rounds."""

    def work() -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    if rounds > 1:
        work()
    return statistics.median(_report.count_seconds(work) for _ in range(rounds))


def measure_help(report: _report.Report, rounds: int) -> None:
    """Time `--help` of every command beside an empty Python and one that imports torch."""
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    helps = {name: time_process("-m", "mltool", name, "--help", rounds=rounds) for name in commands}
    slowest = max(helps, key=lambda name: helps[name])
    report.append(
        "startup",
        case="--help",
        median_s=round(statistics.median(helps.values()), 3),
        slowest=slowest,
        slowest_s=round(helps[slowest], 3),
        python_s=round(time_process("-c", "pass", rounds=rounds), 3),
        import_torch_s=round(time_process("-c", "import torch", rounds=rounds), 3),
    )


def measure_evaluate(report: _report.Report, rounds: int) -> None:
    """Time a whole `evaluate` of 2000 vectors."""
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "small.h5"))
        names = [f"{row:05d}" for row in range(2000)]
        vectors = generator.standard_normal((2000, 128)).astype(np.float32)
        labels = generator.integers(0, 100, 2000)
        embeddings.write(path, Embeddings(names, vectors, labels))
        seconds = time_process("-m", "mltool", "evaluate", path, "--json", rounds=rounds)
    report.append("startup", case="evaluate 2000 x 128", median_s=round(seconds, 3))


def main() -> None:
    smoke = _arguments.make_parser(__doc__).parse_args().smoke
    report, rounds = _report.Report(smoke), 1 if smoke else 7
    measure_help(report, rounds)
    measure_evaluate(report, rounds)


if __name__ == "__main__":
    main()
