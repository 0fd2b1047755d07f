"""Find exact nearest neighbours and exact ranks of relevant rows, within a memory limit.

>>> from mltool.exact.vector_set import make_vector_sets
>>> rows, _ = make_vector_sets(
...     (np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), np.array([b"a", b"b", b"c"])),
...     None,
...     metric="cosine",
... )
>>> nearest = find_neighbors(rows, rows, k=1, self_rows=np.arange(3), resources=Resources())
>>> nearest.rows.tolist(), nearest.scores.round(2).tolist()
([[1], [2], [1]], [[0.8], [0.96], [0.96]])
>>> labels = np.array([0, 1, 0])
>>> relevance = Relevance(labels, labels, self_rows=np.arange(3), tie_order=rows.tie_order())
>>> (block,) = rank_relevant(rows, rows, relevance, resources=Resources())
>>> block.starts.tolist(), block.ranks.tolist()  # a and c: b stands above the other of the two
([0, 1, 1, 2], [1, 1])

Whatever the precision of the products, the size of the blocks and the number of threads, the
answer is the same: approximate scores only decide what they can decide for certain, the rest is
scored in float64 by one routine, and equal scores are ordered by the names' UTF-8 bytes.

Threads: both functions use `Resources.threads` threads of their own, and return to one thread. Two
searches at a time are not supported: `Products.exclusive` sets what holds for the process.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.exact.blocks import split_rows
from mltool.exact.duplicates import group_duplicates
from mltool.exact.error_bounds import Precision, estimate_bound
from mltool.exact.products import (
    estimate_speed,
    estimate_start_up,
    list_precisions,
    make_products,
)
from mltool.exact.ranks import RankCounter
from mltool.exact.relevance import Relevance
from mltool.exact.scan import Visitor
from mltool.exact.sweep import SweepPlan, plan_sweep, sweep
from mltool.exact.top_k import TopK, mark_redundant
from mltool.exact.vector_set import VectorSet, find_first_equal_rows, to_user_units
from mltool.processors import usable_cores

logger = logging.getLogger(__name__)

RELEVANT_BYTES = 80  # memory that counting takes for each relevant row of a query
NEIGHBOR_BYTES = 16  # and selecting for each neighbour
WORTH_SAMPLING = 0.3  # seconds of work from which the best precision is sought
SAMPLE = 64, 4096  # queries and gallery rows looked at for that
SECONDS_PER_PAIR = 8e-7 / 512  # exact score of one pair, for each dimension


@dataclass(frozen=True)
class Resources:
    """What a search may use; none of it changes the result."""

    max_memory: int = 4 * 2**30  # bytes, beside the vectors themselves
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # default: all cores
    precision: Literal["auto"] | Precision = "auto"  # of the products


@dataclass(frozen=True, eq=False)
class Neighbors:
    """The k nearest gallery rows of each query, best first."""

    rows: np.ndarray  # [Q, k] int64, -1 where the gallery has fewer
    scores: np.ndarray  # [Q, k] float64: cosine, dot product or minus the distance; -inf with -1


@dataclass(frozen=True, eq=False)
class Ranks:
    """0-based ranks of the relevant rows of the queries first, first + 1, ..."""

    first: int
    starts: np.ndarray  # [q + 1] where each query's ranks begin
    ranks: np.ndarray  # [P] int64, ascending for each query
    tied: np.ndarray  # [P] bool: an irrelevant row has the same score
    scores: np.ndarray  # [P] float64, exact
    tie_order: np.ndarray  # [P] int64, which says what rows these are

    def pad(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return (ranks [n, R], relevant [n]) of some queries, as the ranking metrics take them.

        `rows` [n] counts the queries from `first`; ranks are padded with 0.
        """
        relevant = np.diff(self.starts)[rows]
        valid = np.arange(relevant.max(initial=0)) < relevant[:, None]
        ranks = np.zeros(valid.shape, np.int64)
        positions = self.starts[rows][:, None] + np.arange(valid.shape[1])
        ranks[valid] = self.ranks[positions[valid]]
        return ranks, relevant


def find_neighbors(
    queries: VectorSet,
    gallery: VectorSet,
    *,
    k: int,
    self_rows: np.ndarray | None,
    resources: Resources,
) -> Neighbors:
    """Find the `k` nearest rows of `gallery` for each query.

    `self_rows` [Q] int64 is the gallery row that is the query itself and is left out, -1 = none;
    None = none for anybody. If `queries is gallery`, half the products do. Raises ResourceError
    for too little memory, UsageError for a device that this machine lacks.
    """
    tie_order, size = gallery.tie_order(), len(gallery)
    self_rows = np.full(len(queries), -1) if self_rows is None else self_rows
    # k + 1 of equal rows are enough: one of them may be the query itself
    redundant = mark_redundant(gallery, tie_order, k + 1)
    kept = np.flatnonzero(~redundant)
    if _pays_to_copy(len(kept), gallery, resources):
        row_in_copy = np.full(size + 1, -1)  # its last entry stands for -1
        row_in_copy[kept] = np.arange(len(kept))
        # a redundant self row becomes -1: the copy lacks it, so nothing has to be left out
        self_rows, tie_order = row_in_copy[self_rows], tie_order[kept]
        redundant, gallery = redundant[kept], gallery.take(kept)
    else:
        kept = np.arange(size)
    results = [Neighbors(np.empty((0, k), np.int64), np.empty((0, k)))]
    most = max(1, resources.max_memory // (4 * NEIGHBOR_BYTES * k))
    for rows in split_rows(len(queries), most):
        top = TopK(
            _view_queries(queries, rows),
            gallery,
            k=k,
            self_rows=self_rows[rows],
            tie_order=tie_order,
            redundant=redundant,
        )
        run_visitor(top, resources)
        original_rows = np.append(kept, -1)[top.rows]
        results.append(Neighbors(original_rows, to_user_units(top.scores, gallery)))
    return Neighbors(
        np.concatenate([each.rows for each in results]),
        np.concatenate([each.scores for each in results]),
    )


def rank_relevant(
    queries: VectorSet,
    gallery: VectorSet,
    relevance: Relevance,
    *,
    depth: np.ndarray | None = None,
    resources: Resources,
) -> Iterator[Ranks]:
    """Rank every query's relevant rows; yields the ranks of some queries at a time, in order.

    A query's ranks below its `depth` [Q] are exact (default: all); the others are said to be at
    least that, which is much faster. If `queries is gallery`, half the products do. Raises
    ResourceError for too little memory, UsageError for a device that this machine lacks.
    """
    if depth is None:
        depth = np.full(len(queries), len(gallery) + 1)
    first_equal = find_first_equal_rows(gallery)
    duplicates = None
    if first_equal is not None and _pays_to_copy(len(np.unique(first_equal)), gallery, resources):
        duplicates = group_duplicates(first_equal, relevance)
    most = resources.max_memory // (4 * RELEVANT_BYTES)
    for rows in _split_by_relevant(relevance.count_relevant(), most):
        counter = RankCounter(
            _view_queries(queries, rows),
            gallery,
            relevance.view(rows),
            depth[rows],
            first_equal_rows=first_equal,
            duplicates=duplicates,
        )
        run_visitor(counter, resources)
        tally = counter.tally
        yield Ranks(rows.start, tally.starts, *counter.ranks(), tally.scores, tally.tie_order)


def run_visitor(visitor: Visitor, resources: Resources) -> None:
    """Sweep over all scores for a visitor, in the precision that is done first.

    Raises ResourceError for too little memory, UsageError for a device that this machine lacks.
    """
    threads = resources.threads or usable_cores()
    precisions = list_precisions(resources.device)
    precision = _choose_precision(visitor, resources, precisions, threads)
    queries, gallery = visitor.queries, visitor.gallery
    plan = plan_sweep(queries, gallery, precision, max_memory=resources.max_memory, threads=threads)
    logger.info("%s", _describe(queries, gallery, precision, plan))
    sweep(visitor, products=make_products(precision, resources.device), plan=plan)


def _view_queries(queries: VectorSet, rows: slice) -> VectorSet:
    # all queries stay the same object, because `queries is gallery` means all against all
    return queries if rows == slice(0, len(queries)) else queries.view(rows)


def _pays_to_copy(count: int, gallery: VectorSet, resources: Resources) -> bool:
    """Return whether comparing with a copy of `count` gallery rows is less work, and fits."""
    size = count * gallery.dim * gallery.vectors.dtype.itemsize
    return 2 * count < len(gallery) and 4 * size <= resources.max_memory


def _split_by_relevant(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Yield consecutive queries with at most `most` relevant rows together, or a single query."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def _describe(queries: VectorSet, gallery: VectorSet, precision: str, plan: SweepPlan) -> str:
    once = ", each product once" if queries is gallery else ""
    return (
        f"comparing {len(queries):,} x {len(gallery):,} vectors of {gallery.dim} dimensions in "
        f"{precision}{once}: at most {plan.peak_bytes / 2**20:,.0f} MiB beside vectors and "
        "results"
    )


def _choose_precision(
    visitor: Visitor,
    resources: Resources,
    precisions: Sequence[Precision],
    threads: int,
) -> Precision:
    """Choose the precision that should be done first: fast products or few exact scores."""
    if resources.precision != "auto":
        return resources.precision
    queries, gallery, device = visitor.queries, visitor.gallery, resources.device
    pairs = len(queries) * len(gallery)
    work = 2.0 * pairs * gallery.dim / (2 if queries is gallery else 1)
    if device == "cpu" and work / estimate_speed("float32", device, threads) < WORTH_SAMPLING:
        return "float32"
    rows = _space_evenly(len(queries), SAMPLE[0])
    scores = _sample_scores(queries.scale(rows), gallery, _space_evenly(len(gallery), SAMPLE[1]))

    def estimate_seconds(precision: Precision) -> float:
        bound = estimate_bound(precision, dim=gallery.dim, metric=gallery.metric)
        rescored = visitor.estimate_rescored_fraction(rows, scores, bound)
        exact = rescored * pairs * SECONDS_PER_PAIR * (gallery.dim + 50) / threads
        products = work / estimate_speed(precision, device, threads)
        return estimate_start_up(precision) + products + exact

    return min(precisions, key=estimate_seconds)


def _sample_scores(left: np.ndarray, gallery: VectorSet, rows: np.ndarray) -> np.ndarray:
    """Score scaled queries [n, D] with some gallery rows [m] by float64 products: [n, m]."""
    right = gallery.scale(rows)
    scores = left @ right.T
    if gallery.metric == "euclidean":
        scores *= 2.0
        scores -= np.einsum("nd,nd->n", left, left)[:, None]
        scores -= np.einsum("nd,nd->n", right, right)
    return scores


def _space_evenly(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
