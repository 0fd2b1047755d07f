"""How long the shell waits: `--help` of every command, and `evaluate` of a small file.

    python recipes/bench/startup.py

The bound for help is 0.3 s; `import torch` alone is printed beside it.
"""

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import _report
import numpy as np

from mltool.cli import PANELS
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

ROUNDS = 7


def whole_process(*words: str) -> float:
    def work() -> None:
        subprocess.run([sys.executable, *words], check=True, capture_output=True)

    work()
    return statistics.median(_report.seconds(work) for _ in range(ROUNDS))


def main() -> None:
    names = [f.__name__.removesuffix("_components") for fs in PANELS.values() for f in fs]
    helps = {name: whole_process("-m", "mltool", name, "--help") for name in names}
    slowest = max(helps, key=lambda name: helps[name])
    _report.append(
        "startup",
        case="--help",
        median_s=round(statistics.median(helps.values()), 3),
        slowest=slowest,
        slowest_s=round(helps[slowest], 3),
        python_s=round(whole_process("-c", "pass"), 3),
        import_torch_s=round(whole_process("-c", "import torch"), 3),
    )
    generator = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder, "small.h5"))
        names = [f"{row:05d}" for row in range(2000)]
        vectors = generator.standard_normal((2000, 128)).astype(np.float32)
        labels = generator.integers(0, 100, 2000)
        embeddings.write(path, Embeddings(names, vectors, labels))
        took = whole_process("-m", "mltool", "evaluate", path, "--json")
    _report.append("startup", case="evaluate 2000 x 128", median_s=round(took, 3))


if __name__ == "__main__":
    main()
