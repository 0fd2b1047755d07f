"""Scan the scores of a tile and hand those that matter to a visitor: the contract of the two.

>>> scores = np.zeros((2, 20))
>>> scores[0, 3], scores[1, 5], scores[1, 6] = 0.9, 0.8, 0.7
>>> select_above(scores, np.array([[0.9], [0.75]]))  # one threshold a query
Candidates(queries=array([0, 1]), columns=array([3, 5]), scores=array([0.9, 0.8]))
>>> select_above(scores, np.array([[0.9], [0.65]])) is None  # 3 of 40 pass, more than DENSE
True

A strip of a tile is multiplied, compared with the thresholds and forgotten while it is in a core's
cache. What the visitor sees of a tile whose queries are `rows`:

1. `thresholds(rows, bound)` is called once, before the tile is scanned.
2. A strip of which few scores pass is kept as `Candidates`. A strip of which many pass, or that
   has a query without a threshold, goes whole to `accept_dense`, at once.
3. After the last strip, `accept` gets the candidates, in ascending order of their queries.

Where queries and gallery are one set, a tile serves its columns as queries too, with the scores
transposed: their thresholds are asked for in step 1, their scores handed over after step 3.

Threads: `accept` and `accept_dense` are called from many threads at a time, but never at a time for
the same query, so a visitor that writes only what belongs to these queries needs no lock.
`thresholds` is never called while the other two run. Thresholds only ever rise, and candidates may
have passed a threshold of a while ago: a visitor checks them again before it believes them.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from mltool.exact.blocks import split_rows
from mltool.exact.error_bounds import Bound
from mltool.exact.tile import Tile
from mltool.exact.vector_set import VectorSet

STRIP = 2**20  # scores that are multiplied and compared at a time
DENSE_STRIP = 2**18  # scores that `accept_dense` gets at a time
DENSE = 0.05  # share of a strip that passes from which on the strip is handed over whole


class Candidates(NamedTuple):
    """Approximate scores that reached their query's threshold."""

    queries: np.ndarray  # [n] rows, ascending
    columns: np.ndarray  # [n] rows of the gallery
    scores: np.ndarray  # [n] approximate


class Visitor(Protocol):
    """What a scan hands scores to; the head of this file says when and from which threads."""

    queries: VectorSet
    gallery: VectorSet

    def thresholds(self, rows: slice, bound: Bound) -> np.ndarray:
        """Return for some queries the lowest approximate score [n] that matters; -inf: all do."""

    def accept(self, candidates: Candidates, bound: Bound) -> None:
        """Take scores that reached a threshold."""

    def accept_dense(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Take all scores [n, m] of the queries from `row` on with the gallery from `column` on.

        The array may be overwritten.
        """

    def estimate_rescored_fraction(
        self, rows: np.ndarray, scores: np.ndarray, bound: Bound
    ) -> float:
        """Estimate the share of all pairs that will be scored exactly.

        From sampled approximate scores [n, m] of the queries `rows` [n]; called before the scan.
        """


def scan(
    visitor: Visitor,
    tile: Tile,
    rows: slice,
    columns: slice,
    both: bool,
    pool: ThreadPoolExecutor,
    threads: int,
) -> None:
    """Scan a tile for the queries `rows` and, if `both`, for the queries `columns` too."""
    thresholds = visitor.thresholds(rows, tile.bound)
    transposed = visitor.thresholds(columns, tile.bound) if both else None
    # one column without a threshold is enough to hand over all columns whole, below
    if transposed is not None and np.isneginf(transposed).any():
        transposed = None

    def scan_strip(strip: slice) -> tuple[Candidates | None, Candidates | None]:
        """Return the candidates of the strip's rows and columns; None where there are too many."""
        scores = tile.score_rows(strip)
        row, column = rows.start + strip.start, columns.start
        # first the columns, because the visitor may overwrite the strip
        column_hits = None if transposed is None else select_above(scores, transposed[None, :])
        if column_hits is not None:
            column_hits = Candidates(
                column_hits.columns + column, column_hits.queries + row, column_hits.scores
            )
        row_hits = select_above(scores, thresholds[strip, None])
        if row_hits is not None:
            row_hits = row_hits._replace(
                queries=row_hits.queries + row, columns=row_hits.columns + column
            )
            return row_hits, column_hits
        for some in split_rows(len(scores), max(1, DENSE_STRIP // scores.shape[1])):
            visitor.accept_dense(scores[some], row + some.start, column, tile.bound)
        return None, column_hits

    height = max(1, STRIP // max(1, columns.stop - columns.start))
    hits = list(pool.map(scan_strip, split_rows(rows.stop - rows.start, height)))
    _accept(visitor, [row_hits for row_hits, _ in hits], tile.bound, pool, threads)
    if not both:
        return
    if any(column_hits is None for _, column_hits in hits):
        _accept_columns(visitor, tile, rows, columns, pool)
    else:
        _accept(visitor, [column_hits for _, column_hits in hits], tile.bound, pool, threads)


def select_above(scores: np.ndarray, thresholds: np.ndarray) -> Candidates | None:
    """Select the scores [n, m] that reach the thresholds [n, 1] or [1, m].

    Returns None if more than the share DENSE of them do, or if a threshold is -inf.
    """
    if np.isneginf(thresholds).any():
        return None
    # one step lower, because the conversion may have rounded a threshold up
    lowest = np.nextafter(thresholds.astype(scores.dtype), -np.inf)
    mask = scores >= lowest
    if np.count_nonzero(mask) > DENSE * mask.size:
        return None
    flat = np.flatnonzero(mask)
    return Candidates(*np.divmod(flat, scores.shape[1]), scores.ravel()[flat])


def _accept(
    visitor: Visitor,
    hits: Sequence[Candidates | None],
    bound: Bound,
    pool: ThreadPoolExecutor,
    threads: int,
) -> None:
    """Let `visitor` accept the candidates of all strips, different queries in parallel."""
    non_empty = [strip for strip in hits if strip is not None]
    if not sum(len(strip.queries) for strip in non_empty):
        return
    queries, columns, scores = (np.concatenate(arrays) for arrays in zip(*non_empty, strict=True))
    order = np.argsort(queries, kind="stable")
    merged = Candidates(queries[order], columns[order], scores[order])
    list(pool.map(lambda share: visitor.accept(share, bound), _deal(merged, threads)))


def _deal(candidates: Candidates, number: int) -> Iterator[Candidates]:
    """Yield at most `number` shares of about equal size; a query's candidates stay together."""
    middles = np.arange(1, number) * len(candidates.queries) // number
    cuts = np.searchsorted(candidates.queries, candidates.queries[middles])
    for start, stop in itertools.pairwise([0, *cuts.tolist(), len(candidates.queries)]):
        if start < stop:
            yield Candidates(*(array[start:stop] for array in candidates))


def _accept_columns(
    visitor: Visitor, tile: Tile, rows: slice, columns: slice, pool: ThreadPoolExecutor
) -> None:
    """Let `visitor` accept all columns of a tile whole, as queries."""

    def accept_strip(strip: slice) -> None:
        transposed = tile.score_columns(strip)
        visitor.accept_dense(transposed, columns.start + strip.start, rows.start, tile.bound)

    height = max(1, DENSE_STRIP // max(1, rows.stop - rows.start))
    list(pool.map(accept_strip, split_rows(columns.stop - columns.start, height)))
