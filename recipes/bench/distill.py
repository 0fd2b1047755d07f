"""What a cached teacher saves, and what it costs.

    python recipes/bench/distill.py epoch     an epoch with the cached against the online teacher
    python recipes/bench/distill.py memory    peak memory of training beside a teacher of 1M x 2048
    python recipes/bench/distill.py mining    seconds to rank a pool, against one full argsort

Ratios are theirs / ours, so above 1 the cached teacher, or our ranking, is faster.
"""

import sys
import tempfile
from pathlib import Path

import _process
import _report
import h5py
import numpy as np

from mltool.datasets import open_data
from mltool.engine.mining import hardest
from mltool.signatures.distill import distill
from mltool.signatures.embed import embed

DATA = "digits:train"
SMALL = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--workers", 0, "-q")


def epoch(teacher: str, student: str, size: int, rounds: int) -> None:
    """The same student, crops and loss; teachers are random, which costs what others do."""
    with tempfile.TemporaryDirectory() as text:
        vectors, output = str(Path(text, "t.h5")), str(Path(text, "s.safetensors"))
        embed(teacher, [DATA], vectors, image_size=size, resize=size, workers=0)
        model = str(Path(text, "t.safetensors"))
        words = ("--image-size", size, "--resize", size, "--projection", "none", "-q")
        _process.mltool("train", DATA, "--arch", teacher, *words, "--epochs", 0, "-o", model)

        def seconds(source: str) -> float:
            return _report.seconds(
                lambda: distill(
                    [DATA],
                    output,
                    teacher=source,
                    arch=student,
                    image_size=size,
                    resize=size,
                    loss=["regression"],
                    epochs=1,
                    workers=0,
                )
            )

        figures = _report.in_turns(lambda: seconds(vectors), lambda: seconds(model), rounds=rounds)
        _report.append("distill_epoch", teacher=teacher, student=student, size=size, **figures)


def sparse_teacher(path: Path, rows: int, dim: int) -> None:
    """An embeddings file whose matrix is a hole in the disk; it begins with the digits' names."""
    known = open_data([DATA], need_split=True).names
    names = np.concatenate([known, np.char.mod(b"z/%07d", np.arange(rows - len(known)))])
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


def memory(rows: int, dim: int) -> None:
    """Peak resident memory of whole runs, beside that with a teacher of the list's own size."""
    with tempfile.TemporaryDirectory() as text:
        peaks = {}
        for count in (1000, rows):
            sparse_teacher(Path(text, "t.h5"), count, dim)
            found = _process.mltool(
                *("distill", DATA, "--teacher", Path(text, "t.h5"), *SMALL),
                *("--loss", "regression", "--epochs", 2, "-o", Path(text, "s.safetensors")),
            )
            peaks[count] = round(found.peak_mib)
        size = round(rows * dim * 4 / 2**20)
        _report.append(
            "distill_memory", rows=rows, dim=dim, file_mib=size, mib=peaks[rows], least=peaks[1000]
        )


def mining(queries: int, pool: int, dim: int, classes: int, rounds: int) -> None:
    """The published walk needs every candidate in order; ours only the best of each class."""
    generator = np.random.default_rng(0)
    anchors, candidates = (
        generator.normal(size=(count, dim)).astype(np.float32) for count in (queries, pool)
    )
    own, labels = generator.integers(0, classes, queries), generator.integers(0, classes, pool)

    def ours() -> float:
        return _report.seconds(lambda: hardest(anchors, own, candidates, labels, count=5))

    def theirs() -> float:
        return _report.seconds(lambda: walk(anchors, own, candidates, labels))

    figures = _report.in_turns(ours, theirs, rounds=rounds)
    _report.append(
        "distill_mining", queries=queries, pool=pool, dim=dim, classes=classes, **figures
    )


def walk(anchors: np.ndarray, own: np.ndarray, pool: np.ndarray, labels: np.ndarray) -> list:
    """Sort the whole pool for each anchor and walk down."""
    ranking = np.argsort(-(anchors @ pool.T), axis=1)
    found = []
    for row, places in enumerate(ranking):
        used, chosen = {int(own[row])}, []
        for place in places:
            if labels[place] not in used:
                used.add(int(labels[place]))
                chosen.append(place)
            if len(chosen) == 5:
                break
        found.append(chosen)
    return found


def main() -> None:
    wanted = sys.argv[1:] or ["epoch", "memory", "mining"]
    if "epoch" in wanted:
        epoch("resnet10t", "test_resnet", 32, rounds=3)
        epoch("resnet18", "mobilenetv2_050", 64, rounds=3)
    if "memory" in wanted:
        memory(1_000_000, 2048)
    if "mining" in wanted:
        mining(2000, 20_000, 512, 600, rounds=3)


if __name__ == "__main__":
    main()
