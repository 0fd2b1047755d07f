"""Exact nearest neighbours and exact ranks of relevant rows, blocked and within a memory limit.

Whatever the precision of the products, the size of the blocks and the number of threads, the
answer is the same: approximate scores only decide what they can decide for certain, the rest is
scored in float64 by one routine, and equal scores are ordered by the names' UTF-8 bytes.
"""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.exact.blocks import blocks
from mltool.exact.duplicates import copies_of
from mltool.exact.error_bounds import Precision, usual_bound
from mltool.exact.products import available, products_of, speed, start_up
from mltool.exact.ranks import Counting
from mltool.exact.relevance import Relevance
from mltool.exact.sweep import Plan, plan, sweep
from mltool.exact.top_k import Selecting, surplus_of
from mltool.exact.vector_set import VectorSet, originals, public
from mltool.processors import usable_cores

logger = logging.getLogger(__name__)

RELEVANT_BYTES = 80  # memory that counting takes for each relevant row of a query
KEPT_BYTES = 16  # and selecting for each neighbour
WORTH_A_LOOK = 0.3  # seconds of work from which the best precision is sought
SAMPLE = 64, 4096  # queries and gallery rows looked at for that
SECONDS_PER_PAIR = 8e-7 / 512  # exact score of one pair, for each dimension


@dataclass(frozen=True)
class Resources:
    """What a search may use; none of it changes the result."""

    max_memory: int = 4 * 2**30  # bytes, beside the vectors themselves
    device: str = "cpu"  # cpu, cuda or cuda:N
    threads: int | None = None  # default: all processors
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
    places: np.ndarray  # [P] int64, the rows by their place in the order of ties

    def padded(self, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(ranks [n, R], relevant [n]) of some queries, as the ranking metrics take them."""
        relevant = np.diff(self.starts)[rows]
        there = np.arange(relevant.max(initial=0)) < relevant[:, None]
        ranks = np.zeros(there.shape, np.int64)
        ranks[there] = self.ranks[(self.starts[rows][:, None] + np.arange(there.shape[1]))[there]]
        return ranks, relevant


def neighbors(
    queries: VectorSet, gallery: VectorSet, *, k: int, own: np.ndarray | None, resources: Resources
) -> Neighbors:
    """The `k` nearest rows of `gallery` for each query, without the query's `own` row [Q].

    `own` is -1 where there is none, None where nobody has one.
    `queries is gallery` searches all against all with half the products. Raises ResourceError.
    """
    places, size = gallery.places(), len(gallery)
    own = np.full(len(queries), -1) if own is None else own
    surplus = surplus_of(gallery, places, k + 1)
    kept = np.flatnonzero(~surplus)
    if _is_worth(len(kept), gallery, resources):  # then they are nobody's neighbours either way
        inverse = np.full(size + 1, -1)
        inverse[kept] = np.arange(len(kept))
        own, places, surplus = inverse[own], places[kept], surplus[kept]
        gallery = gallery.take(kept)
    else:
        kept = np.arange(size)
    found = []
    for rows in blocks(len(queries), max(1, resources.max_memory // (4 * KEPT_BYTES * k))):
        whole = rows == slice(0, len(queries))
        asking = queries if whole else queries.part(rows)
        selecting = Selecting(asking, gallery, k=k, own=own[rows], places=places, surplus=surplus)
        _run(selecting, resources)
        named = np.append(kept, -1)[selecting.rows]
        found.append(Neighbors(named, public(selecting.scores, gallery)))
    empty = [Neighbors(np.empty((0, k), np.int64), np.empty((0, k)))]
    return Neighbors(
        np.concatenate([part.rows for part in found or empty]),
        np.concatenate([part.scores for part in found or empty]),
    )


def ranks(
    queries: VectorSet,
    gallery: VectorSet,
    relevance: Relevance,
    *,
    depth: np.ndarray | None = None,
    resources: Resources,
) -> Iterator[Ranks]:
    """Ranks of every query's relevant rows, some queries at a time, in order.

    A query's ranks below its `depth` [Q] are exact (default: all); the others are said to be at
    least that, which is much faster. `queries is gallery` compares all against all with half the
    products. Raises ResourceError.
    """
    if depth is None:
        depth = np.full(len(queries), len(gallery) + 1)
    equal = originals(gallery)
    copies = None
    if equal is not None and _is_worth(len(np.unique(equal)), gallery, resources):
        copies = copies_of(equal, relevance)
    for rows in _affordable(relevance.counts(), resources.max_memory // (4 * RELEVANT_BYTES)):
        whole = rows == slice(0, len(queries))
        asking = queries if whole else queries.part(rows)
        part = relevance.part(rows)
        counting = Counting(asking, gallery, part, depth[rows], equal=equal, copies=copies)
        _run(counting, resources)
        found = counting.ranks()
        yield Ranks(rows.start, counting.starts, *found, counting.scores, counting.places)


def _is_worth(count: int, gallery: VectorSet, resources: Resources) -> bool:
    """Whether comparing with a copy of so many gallery rows is less work, and fits."""
    size = count * gallery.dim * gallery.vectors.dtype.itemsize
    return 2 * count < len(gallery) and 4 * size <= resources.max_memory


def _affordable(counts: np.ndarray, most: int) -> Iterator[slice]:
    """Consecutive queries that have at most `most` relevant rows together, or are alone."""
    ends = np.cumsum(counts)
    start = 0
    while start < len(counts):
        before = ends[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + most, side="right")))
        yield slice(start, stop)
        start = stop


def _run(visitor: Counting | Selecting, resources: Resources) -> None:
    threads = resources.threads or usable_cores()
    known = available(resources.device)
    precision = _choose(visitor, resources, known, threads)
    queries, gallery = visitor.queries, visitor.gallery
    chosen = plan(queries, gallery, precision, max_memory=resources.max_memory, threads=threads)
    logger.info("%s", _description(queries, gallery, precision, chosen))
    sweep(visitor, products=products_of(precision, resources.device), plan=chosen)


def _description(queries: VectorSet, gallery: VectorSet, precision: str, chosen: Plan) -> str:
    once = ", each product once" if queries is gallery else ""
    return (
        f"comparing {len(queries):,} x {len(gallery):,} vectors of {gallery.dim} dimensions in "
        f"{precision}{once}: at most {chosen.peak_bytes / 2**20:,.0f} MiB beside vectors and "
        "results"
    )


def _choose(
    visitor: Counting | Selecting,
    resources: Resources,
    known: Sequence[Precision],
    threads: int,
) -> Precision:
    """The precision that should be done first: fast products or few exact scores."""
    if resources.precision != "auto":
        return resources.precision
    queries, gallery, device = visitor.queries, visitor.gallery, resources.device
    pairs = len(queries) * len(gallery)
    work = 2.0 * pairs * gallery.dim / (2 if queries is gallery else 1)
    if device == "cpu" and work / speed("float32", device, threads) < WORTH_A_LOOK:
        return "float32"
    rows = _spread(len(queries), SAMPLE[0])
    scores = _rough_scores(queries.prepared(rows), gallery, _spread(len(gallery), SAMPLE[1]))

    def seconds(precision: Precision) -> float:
        bound = usual_bound(precision, dim=gallery.dim, metric=gallery.metric)
        part = visitor.doubtful(rows, scores, bound)
        exact = part * pairs * SECONDS_PER_PAIR * (gallery.dim + 50) / threads
        return start_up(precision) + work / speed(precision, device, threads) + exact

    return min(known, key=seconds)


def _rough_scores(left: np.ndarray, gallery: VectorSet, rows: np.ndarray) -> np.ndarray:
    right = gallery.prepared(rows)
    scores = left @ right.T
    if gallery.metric == "euclidean":
        scores *= 2.0
        scores -= np.einsum("nd,nd->n", left, left)[:, None]
        scores -= np.einsum("nd,nd->n", right, right)
    return scores


def _spread(count: int, most: int) -> np.ndarray:
    return np.unique(np.linspace(0, count - 1, min(count, most)).astype(np.int64))
