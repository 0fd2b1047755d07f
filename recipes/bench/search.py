"""`index` and `search` as whole processes: time and peak memory, and one query from the shell.

    python recipes/bench/search.py                       # 1,000,000 x 512
    python recipes/bench/search.py --rows 50000 --types flat ivf hnsw
    python recipes/bench/search.py --growth 10000 100000 1000000 --types ivf

Every line has the recall that was measured when the index was built.
"""

import argparse
import statistics
import tempfile
from dataclasses import dataclass
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
    """Write queries near to rows of the gallery, under other names, and return their file."""
    stored = embeddings.read_header(gallery)
    generator = np.random.default_rng(1)
    rows = np.sort(generator.choice(len(stored), count, replace=False))
    vectors = stored.vectors[rows]
    vectors = vectors + 0.02 * generator.standard_normal(vectors.shape, np.float32)
    names = [f"query{number}" for number in range(count)]
    path = folder / f"queries{count}.h5"
    embeddings.write(path, Embeddings(names, vectors, space=stored.space))
    return path


@dataclass(frozen=True)
class Bench:
    """Searches in one gallery, each measured a number of times."""

    report: _report.Report
    rounds: int
    data: dict[str, object]  # what every result says of the gallery

    def search(self, case: str, *words: object, **index: object) -> None:
        """Report the median of some searches."""
        runs = [_process.run_mltool("search", "-q", *words) for _ in range(self.rounds)]
        self.report.append(
            "search",
            case=case,
            **self.data,
            **index,
            seconds=round(statistics.median(run.seconds for run in runs), 3),
            peak_mib=round(max(run.peak_mib for run in runs)),
        )

    def build(self, gallery: Path, index: Path, kind: str) -> dict[str, object]:
        """Build an index, report it and return its type and recall."""
        built = _process.run_mltool("index", gallery, "-o", index, "--type", kind, "-q")
        with h5py.File(index) as file:
            about = {"type": kind, "recall": round(float(file.attrs["recall"]), 4)}
        self.report.append(
            "search",
            case="index",
            **self.data,
            **about,
            seconds=round(built.seconds, 2),
            peak_mib=round(built.peak_mib),
            index_mib=round(index.stat().st_size / 2**20),
        )
        return about


def measure(folder: Path, rows: int, arguments: argparse.Namespace) -> None:
    """Exact search, then each kind of index: built, searched by many queries and by one."""
    data = {"rows": rows, **_arguments.describe_data(arguments)}
    bench = Bench(_report.Report(arguments.smoke), arguments.rounds, data)
    gallery, index = folder / "gallery.h5", folder / "gallery.index"
    classes = max(1, rows // 10)
    _clustered.write(gallery, rows=rows, dim=arguments.dim, classes=classes, noise=arguments.noise)
    many, one = (write_queries(folder, gallery, min(rows, count)) for count in (QUERIES, 1))
    hits = folder / "hits.h5"
    bench.search("exact, many queries", gallery, many, "-o", hits)
    bench.search("exact, one query", gallery, one)
    for kind in arguments.types:
        about = bench.build(gallery, index, kind)
        bench.search("index, many queries", index, many, "-o", hits, **about)
        bench.search("index, one query", index, one, **about)


def main() -> None:
    parser = _arguments.make_search_parser(__doc__, rows=1_000_000, noise=1.0)
    parser.add_argument("--types", nargs="*", default=["flat", "ivf", "ivfpq"])
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.dim, arguments.rounds, arguments.types = 2000, 16, 1, ["ivf"]
    for rows in arguments.growth or [arguments.rows]:
        with tempfile.TemporaryDirectory() as folder:
            measure(Path(folder), rows, arguments)


if __name__ == "__main__":
    main()
