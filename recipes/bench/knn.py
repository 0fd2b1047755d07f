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


def side_of(rows: int, dim: int, noise: float) -> tuple[VectorSet, np.ndarray]:
    """A side like a trained model's, and its labels."""
    labels = _clustered.labels_of(rows, max(1, rows // 5)).astype(np.int32)
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((labels.max() + 1, dim), np.float32)[labels]
    for part in split_rows(rows, 2**16):
        vectors[part] += noise * generator.standard_normal(vectors[part].shape, np.float32)
    names = np.char.mod("%08d", np.arange(rows)).astype("S")
    return make_vector_sets((vectors, names), None, metric="cosine")[0], labels


def product(queries: VectorSet, gallery: VectorSet, precision: Precision) -> Callable[[], object]:
    """The bare products of all pairs of rows, by all cores, into memory that is used again."""
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


def compare(given: argparse.Namespace) -> None:
    """Search and ranks in each precision against the bare product."""
    side, labels = side_of(given.rows, given.dim, given.noise)
    apart = side.view(slice(0, len(side)))
    self_rows = np.arange(len(side))
    relevance = Relevance(labels, labels, self_rows, side.tie_order())
    depth = np.maximum(relevance.count_relevant(), 10)
    flops = 2.0 * len(side) ** 2 * side.dim
    for precision in products.list_precisions("cpu")[1:]:
        resources = knn.Resources(precision=precision)

        def search(other: VectorSet, resources: knn.Resources = resources) -> object:
            return knn.find_neighbors(side, other, k=10, self_rows=self_rows, resources=resources)

        def rank(other: VectorSet, resources: knn.Resources = resources) -> object:
            return list(knn.rank_relevant(side, other, relevance, depth=depth, resources=resources))

        cases: dict[str, Callable[[], object]] = {
            "search, queries and gallery": lambda search=search: search(apart),
            "search, all against all": lambda search=search: search(side),
            "ranks, queries and gallery": lambda rank=rank: rank(apart),
            "ranks, all against all": lambda rank=rank: rank(side),
        }
        limit = product(side, apart, precision)
        for name, work in cases.items():
            found = _report.in_turns(
                lambda work=work: _report.seconds(work),
                lambda limit=limit: _report.seconds(limit),
                rounds=given.rounds,
            )
            gflops = {"limit_gflops": round(flops / found["theirs_s"] / 1e9)}
            about = {"rows": given.rows, **_arguments.facts(given)}
            _report.append("knn", case=name, precision=precision, **about, **found, **gflops)


def grow(given: argparse.Namespace) -> None:
    """1,000 queries among more and more rows; the precision is chosen by the search itself."""
    for rows in given.growth:
        gallery, _ = side_of(rows, given.dim, given.noise)
        queries = gallery.view(slice(0, 1000))
        taken = _report.seconds(
            lambda queries=queries, gallery=gallery: knn.find_neighbors(
                queries, gallery, k=10, self_rows=None, resources=knn.Resources()
            )
        )
        fields = _arguments.facts(given) | {"seconds": round(taken, 3)}
        _report.append("knn", case="growth", rows=rows, queries=len(queries), **fields)


def main() -> None:
    given = _arguments.parser(__doc__, rows=_arguments.SOP_ROWS, noise=2.0).parse_args()
    (grow if given.growth else compare)(given)


if __name__ == "__main__":
    main()
