"""`pseudolabel` as a whole process against scikit-learn's KMeans: time, memory and inertia.

    python recipes/bench/pseudolabel.py                     # 1M x 128, k = 1,000
    python recipes/bench/pseudolabel.py --rows 100000 --k 300 --plus-plus

Both read the same file of unit vectors and move the means 20 times from random rows. Ours writes an
image list, theirs an array. With `--plus-plus` scikit-learn starts from k-means++ too, its default.
`OMP_NUM_THREADS` holds for all.

Inertia is computed from the labels of each in the same way: the sum of the squared distances of
rows to the mean of their cluster. NMI is that with the classes that made the rows. Ratios are
theirs / ours.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import _arguments
import _clustered
import _process
import _report
import numpy as np

from mltool.exact.blocks import split_rows
from mltool.files import embeddings
from mltool.files.lists import csv_list
from mltool.retrieval.clustering import nmi

ITERATIONS = 20


def compute_inertia(vectors: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum of the squared distances of rows [N, D] to the means of their clusters."""
    sums, squares = np.zeros((labels.max() + 1, vectors.shape[1])), 0.0
    for rows in split_rows(len(vectors), 2**16):
        block = vectors[rows].astype(np.float64)
        np.add.at(sums, labels[rows], block)
        squares += float(np.square(block).sum())
    sizes = np.maximum(np.bincount(labels), 1)
    return squares - float((np.square(sums).sum(axis=1) / sizes).sum())


def list_programs(
    file: Path, folder: Path, k: int, *, plus_plus: bool
) -> dict[str, tuple[Callable[[], _process.Measured], Callable[[], np.ndarray]]]:
    """Return for each program what runs it, and what reads the labels that it wrote."""
    ours, theirs = folder / "pseudo.csv", folder / "labels.npy"

    def run_theirs(init: str) -> _process.Measured:
        return _process.run_script("_sklearn_kmeans.py", file, k, ITERATIONS, init, theirs)

    method = f"kmeans:k={k},iterations={ITERATIONS}"
    programs = {
        "ours": (
            lambda: _process.run_mltool("pseudolabel", file, "--method", method, "-q", "-o", ours),
            lambda: csv_list.read_csv(ours).labels,
        ),
        "random": (lambda: run_theirs("random"), lambda: np.load(theirs)),
    }
    if plus_plus:
        programs["plus_plus"] = lambda: run_theirs("k-means++"), lambda: np.load(theirs)
    return programs


def compare(arguments: argparse.Namespace) -> None:
    """Measure A B C A B C ... so that the machine's drift cancels in the ratios."""
    with tempfile.TemporaryDirectory() as name:
        file = Path(name, "vectors.h5")
        facts = {"rows": arguments.rows, "dim": arguments.dim, "noise": arguments.noise}
        # scoring against labels would take longer than k-means
        _clustered.write(file, classes=arguments.k, labelled=False, **facts)
        vectors = embeddings.read(file).vectors
        classes = _clustered.draw_labels(arguments.rows, arguments.k)
        programs = list_programs(file, Path(name), arguments.k, plus_plus=arguments.plus_plus)
        runs: dict[str, list[_process.Measured]] = {program: [] for program in programs}
        fields: dict[str, object] = {}
        for _ in range(arguments.rounds):
            for program, (start, read_labels) in programs.items():
                runs[program].append(start())
                labels = read_labels()
                fields[f"{program}_inertia"] = round(compute_inertia(vectors, labels), 1)
                fields[f"{program}_nmi"] = round(nmi(classes, labels), 4)
    for program, measured in runs.items():
        fields[f"{program}_s"] = round(statistics.median(run.seconds for run in measured), 2)
        cpu_seconds = statistics.median(run.cpu_seconds for run in measured)
        fields[f"{program}_cpu_s"] = round(cpu_seconds, 2)
        fields[f"{program}_peak_mib"] = round(max(run.peak_mib for run in measured))
        if program != "ours":
            ratios = [b.seconds / a.seconds for a, b in zip(runs["ours"], measured, strict=True)]
            fields[f"{program}_ratio"] = round(statistics.median(ratios), 2)
    report = _report.Report(arguments.smoke)
    report.append("pseudolabel", **facts, k=arguments.k, rounds=arguments.rounds, **fields)


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--dim", type=int, default=128)
    parser.add_argument("--k", type=int, default=1000)
    parser.add_argument("--noise", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--plus-plus", action="store_true", help="theirs from k-means++ too")
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.dim, arguments.k = 600, 8, 10
    compare(arguments)


if __name__ == "__main__":
    main()
