"""`index` and `search` as whole processes: time and peak memory, and one query from the shell.

    python recipes/bench/search.py                       # 1,000,000 x 512
    python recipes/bench/search.py --rows 50000 --types flat ivf hnsw
    python recipes/bench/search.py --growth 10000 100000 1000000 --types ivf

Every line has the recall that was measured when the index was built.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

import _arguments
import _clustered
import _process
import _report
import h5py
import numpy as np

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

QUERIES = 1000


def write_queries(folder: Path, gallery: Path, count: int) -> Path:
    """Queries near to rows of the gallery, under names of their own."""
    found = embeddings.read_header(gallery)
    generator = np.random.default_rng(1)
    rows = np.sort(generator.choice(len(found), count, replace=False))
    vectors = found.vectors[rows]
    vectors = vectors + 0.02 * generator.standard_normal(vectors.shape, np.float32)
    names = [f"query{number}" for number in range(count)]
    path = folder / f"queries{count}.h5"
    embeddings.write(path, Embeddings(names, vectors, space=found.space))
    return path


def searched(case: str, facts: dict[str, object], words: tuple[object, ...], rounds: int) -> None:
    """Report the median of some searches."""
    runs = [_process.mltool("search", "-q", *words) for _ in range(rounds)]
    _report.append(
        "search",
        case=case,
        **facts,
        seconds=round(statistics.median(run.seconds for run in runs), 3),
        peak_mib=round(max(run.peak_mib for run in runs)),
    )


def measure(folder: Path, rows: int, given: argparse.Namespace) -> None:
    """Exact search, then each kind of index: built, searched by many queries and by one."""
    facts = {"rows": rows, **_arguments.facts(given)}
    gallery, index = folder / "gallery.h5", folder / "gallery.index"
    classes = max(1, rows // 10)
    _clustered.write(gallery, rows=rows, dim=given.dim, classes=classes, noise=given.noise)
    many, one = (write_queries(folder, gallery, min(rows, count)) for count in (QUERIES, 1))
    hits = folder / "hits.h5"
    searched("exact, many queries", facts, (gallery, many, "-o", hits), given.rounds)
    searched("exact, one query", facts, (gallery, one), given.rounds)
    for kind in given.types:
        built = _process.mltool("index", gallery, "-o", index, "--type", kind, "-q")
        with h5py.File(index) as file:
            about = {"type": kind, "recall": round(float(file.attrs["recall"]), 4)}
        known = facts | about
        _report.append(
            "search",
            case="index",
            **known,
            seconds=round(built.seconds, 2),
            peak_mib=round(built.peak_mib),
            index_mib=round(index.stat().st_size / 2**20),
        )
        searched("index, many queries", known, (index, many, "-o", hits), given.rounds)
        searched("index, one query", known, (index, one), given.rounds)


def main() -> None:
    parser = _arguments.parser(__doc__, rows=1_000_000, noise=1.0)
    parser.add_argument("--types", nargs="*", default=["flat", "ivf", "ivfpq"])
    given = parser.parse_args()
    for rows in given.growth or [given.rows]:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), rows, given)


if __name__ == "__main__":
    main()
