"""How near the search comes to the machine's matrix product, and how it grows.

    python recipes/bench/knn.py
    python recipes/bench/knn.py --rows 20000 --rounds 2
    python recipes/bench/knn.py --growth 10000 100000 1000000

`limit` is the bare product of the same rows in the same blocks (numpy's float32; torch's bfloat16,
if the processor has it); `ratio` is the fraction of it that the whole search reaches. All against
all needs half the products, so its fraction may exceed 1. With `--growth`, 1,000 queries
and all rows are in memory; `search.py` and `evaluate.py` measure whole processes.
"""

import argparse
from collections.abc import Callable

import _arguments
import _clustered
import _report
import numpy as np

from mltool.exact import knn, products
from mltool.exact.blocks import split_rows
from mltool.exact.error_bounds import Precision
from mltool.exact.relevance import Relevance
from mltool.exact.vector_set import VectorSet, make_vector_sets

BLOCK = 4096


def make_vectors(rows: int, dim: int, noise: float) -> tuple[VectorSet, np.ndarray]:
    """Return vectors like a trained model's, and their labels."""
    labels = _clustered.draw_labels(rows, max(1, rows // 5)).astype(np.int32)
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((labels.max() + 1, dim), np.float32)[labels]
    for part in split_rows(rows, 2**16):
        vectors[part] += noise * generator.standard_normal(vectors[part].shape, np.float32)
    names = np.char.mod("%08d", np.arange(rows)).astype("S")
    return make_vector_sets((vectors, names), None, metric="cosine")[0], labels


def make_product(
    queries: VectorSet, gallery: VectorSet, precision: Precision
) -> Callable[[], object]:
    """Return the bare products of all pairs of rows, by all cores, into memory used again."""
    arithmetic = products.make_products(precision, "cpu")
    left = [arithmetic.make_operand(queries, rows).data for rows in split_rows(len(queries), BLOCK)]
    right = [
        arithmetic.make_operand(gallery, rows).data for rows in split_rows(len(gallery), BLOCK)
    ]
    if precision == "bfloat16":
        import torch

        buffer = torch.empty(BLOCK, BLOCK, dtype=torch.bfloat16)

        def multiply(one: torch.Tensor, other: torch.Tensor) -> None:
            torch.mm(one, other.T, out=buffer.view(-1)[: len(one) * len(other)].view(len(one), -1))
    else:
        room = np.empty(BLOCK * BLOCK, np.float32)

        def multiply(one: np.ndarray, other: np.ndarray) -> None:
            out = room[: len(one) * len(other)].reshape(len(one), -1)
            np.matmul(one, other.T, out=out)

    def work() -> None:
        for one in left:
            for other in right:
                multiply(one, other)

    return work


def compare(arguments: argparse.Namespace) -> None:
    """Measure search and ranks in each precision against the bare product."""
    report = _report.Report(arguments.smoke)
    vectors, labels = make_vectors(arguments.rows, arguments.dim, arguments.noise)
    apart = vectors.view(slice(0, len(vectors)))
    self_rows = np.arange(len(vectors))
    relevance = Relevance(labels, labels, self_rows, vectors.tie_order())
    depth = np.maximum(relevance.count_relevant(), 10)
    flops = 2.0 * len(vectors) ** 2 * vectors.dim
    for precision in products.list_precisions("cpu")[1:]:
        resources = knn.Resources(precision=precision)

        def search(other: VectorSet, resources: knn.Resources = resources) -> object:
            return knn.find_neighbors(
                vectors, other, k=10, self_rows=self_rows, resources=resources
            )

        def rank(other: VectorSet, resources: knn.Resources = resources) -> object:
            return list(
                knn.rank_relevant(vectors, other, relevance, depth=depth, resources=resources)
            )

        cases: dict[str, Callable[[], object]] = {
            "search, queries and gallery": lambda search=search: search(apart),
            "search, all against all": lambda search=search: search(vectors),
            "ranks, queries and gallery": lambda rank=rank: rank(apart),
            "ranks, all against all": lambda rank=rank: rank(vectors),
        }
        limit = make_product(vectors, apart, precision)
        for name, work in cases.items():
            figures = _report.measure_in_turns(
                lambda work=work: _report.count_seconds(work),
                lambda limit=limit: _report.count_seconds(limit),
                rounds=arguments.rounds,
            )
            gflops = round(flops / max(figures["theirs_s"], 1e-4) / 1e9)
            about = {"rows": arguments.rows, **_arguments.describe_data(arguments)}
            report.append(
                "knn", case=name, precision=precision, **about, **figures, limit_gflops=gflops
            )


def grow(arguments: argparse.Namespace) -> None:
    """Search 1,000 queries among more and more rows, in the precision that the search chooses."""
    report = _report.Report(arguments.smoke)
    for rows in arguments.growth:
        gallery, _ = make_vectors(rows, arguments.dim, arguments.noise)
        queries = gallery.view(slice(0, 1000))
        taken = _report.count_seconds(
            lambda queries=queries, gallery=gallery: knn.find_neighbors(
                queries, gallery, k=10, self_rows=None, resources=knn.Resources()
            )
        )
        fields = _arguments.describe_data(arguments) | {"seconds": round(taken, 3)}
        report.append("knn", case="growth", rows=rows, queries=len(queries), **fields)


def main() -> None:
    parser = _arguments.make_search_parser(__doc__, rows=_arguments.SOP_ROWS, noise=2.0)
    arguments = parser.parse_args()
    if arguments.smoke:
        arguments.rows, arguments.dim, arguments.rounds = 1000, 16, 0
    (grow if arguments.growth else compare)(arguments)


if __name__ == "__main__":
    main()
