"""What a cached teacher saves, and what it costs.

    python recipes/bench/distill.py epoch     an epoch with the cached against the online teacher
    python recipes/bench/distill.py memory    peak memory of training beside a teacher of 1M x 2048
    python recipes/bench/distill.py mining    seconds to rank a pool, against one full argsort

Ratios are theirs / ours, so above 1 the cached teacher, or our ranking, is faster.
"""

import tempfile
from pathlib import Path

import _arguments
import _process
import _report
import h5py
import numpy as np

from mltool.datasets import open_data
from mltool.engine.mining import hardest_negatives

DATA = "digits:train"
PARTS = ["epoch", "memory", "mining"]
SMALL = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "-j", 0, "-q")


def compare_teachers(
    report: _report.Report, teacher: str, student: str, size: int, *, rounds: int
) -> None:
    """Measure the same student, crops and loss; teachers are random, which costs what others do."""
    with tempfile.TemporaryDirectory() as text:
        model, vectors, output = (Path(text, name) for name in ("t.safetensors", "t.h5", "s"))
        images = ("--image-size", size, "--resize", size, "-j", 0, "-q")
        head = ("--arch", teacher, "--projection", "none", "--epochs", 0)
        _process.call_mltool("train", DATA, "-o", model, *images, *head)
        _process.call_mltool("embed", model, DATA, "-o", vectors, "-j", 0, "-q")

        def distill(source: Path) -> float:
            words = ("--teacher", source, "--arch", student, "--loss", "regression")
            return _process.call_mltool(
                "distill", DATA, "-o", output, *images, *words, "--epochs", 1
            )

        figures = _report.measure_in_turns(
            lambda: distill(vectors), lambda: distill(model), rounds=rounds
        )
    report.append("distill_epoch", teacher=teacher, student=student, size=size, **figures)


def write_sparse_teacher(path: Path, rows: int, dim: int) -> None:
    """Write embeddings whose matrix is a hole in the disk; they begin with the digits' names."""
    digits = open_data([DATA], need_split=True).names
    names = np.concatenate([digits, np.char.mod(b"z/%07d", np.arange(rows - len(digits)))])
    layout = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    layout.set_layout(h5py.h5d.CONTIGUOUS)
    layout.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    layout.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    with h5py.File(path, "w") as file:
        file.attrs["format"] = np.bytes_("mltool-embeddings")
        file.attrs["format_version"] = 1
        file["names"] = np.random.default_rng(0).permutation(names)
        file["labels"] = np.zeros(rows, np.int64)
        space = h5py.h5s.create_simple((rows, dim))
        h5py.h5d.create(file.id, b"embeddings", h5py.h5t.IEEE_F32LE, space, layout)


def measure_memory(report: _report.Report, rows: int, dim: int) -> None:
    """Report the peak resident memory of whole runs, beside that with a teacher of 1000 rows."""
    peaks = {}
    with tempfile.TemporaryDirectory() as text:
        teacher, output = Path(text, "t.h5"), Path(text, "s.safetensors")
        for count in {1000, rows}:
            write_sparse_teacher(teacher, count, dim)
            words = ("--teacher", teacher, *SMALL, "--loss", "regression", "--epochs", 2)
            peaks[count] = round(
                _process.run_mltool("distill", DATA, "-o", output, *words).peak_mib
            )
    size = round(rows * dim * 4 / 2**20)
    report.append(
        "distill_memory", rows=rows, dim=dim, file_mib=size, mib=peaks[rows], least=peaks[1000]
    )


def compare_rankings(
    report: _report.Report, queries: int, pool: int, dim: int, classes: int, *, rounds: int
) -> None:
    """Measure the published walk, which sorts every candidate, against the best of each class."""
    generator = np.random.default_rng(0)
    anchors, candidates = (
        generator.normal(size=(count, dim)).astype(np.float32) for count in (queries, pool)
    )
    anchor_labels, labels = (generator.integers(0, classes, count) for count in (queries, pool))
    data = (anchors, anchor_labels, candidates, labels)
    figures = _report.measure_in_turns(
        lambda: _report.count_seconds(lambda: hardest_negatives(*data, count=5)),
        lambda: _report.count_seconds(lambda: walk(*data)),
        rounds=rounds,
    )
    sizes = {"queries": queries, "pool": pool, "dim": dim, "classes": classes}
    report.append("distill_mining", **sizes, **figures)


def walk(
    anchors: np.ndarray, anchor_labels: np.ndarray, pool: np.ndarray, labels: np.ndarray
) -> list[list[int]]:
    """Sort the whole pool for each anchor and walk down to five negatives of distinct classes."""
    ranking = np.argsort(-(anchors @ pool.T), axis=1)
    negatives = []
    for row, columns in enumerate(ranking):
        taken, of_row = {int(anchor_labels[row])}, []
        for column in columns:
            if labels[column] not in taken:
                taken.add(int(labels[column]))
                of_row.append(int(column))
            if len(of_row) == 5:
                break
        negatives.append(of_row)
    return negatives


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("parts", nargs="*", metavar="|".join(PARTS), default=PARTS)
    arguments = parser.parse_args()
    report = _report.Report(arguments.smoke)
    if arguments.smoke:
        compare_teachers(report, "test_resnet", "test_resnet", 16, rounds=0)
        measure_memory(report, 1000, 8)
        compare_rankings(report, 20, 200, 8, 12, rounds=0)
        return
    if "epoch" in arguments.parts:
        compare_teachers(report, "resnet10t", "test_resnet", 32, rounds=3)
        compare_teachers(report, "resnet18", "mobilenetv2_050", 64, rounds=3)
    if "memory" in arguments.parts:
        measure_memory(report, 1_000_000, 2048)
    if "mining" in arguments.parts:
        compare_rankings(report, 2000, 20_000, 512, 600, rounds=3)


if __name__ == "__main__":
    main()
