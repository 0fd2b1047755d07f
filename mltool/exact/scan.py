"""Showing the scores of a tile to who wants them: mostly a few that pass a limit.

A strip is multiplied, compared with the limits of its rows and of its columns, and forgotten while
it is in a core's cache. Only strips of which much is wanted are shown whole.
"""

import itertools
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, Protocol

import numpy as np

from mltool.exact.blocks import blocks
from mltool.exact.error_bounds import Bound
from mltool.exact.tile import Tile
from mltool.exact.vector_set import VectorSet

STRIP = 2**20  # scores that are multiplied and compared at a time
WHOLE = 2**18  # scores that are shown whole at a time
DENSE = 0.05  # part of a strip from which on it is shown whole


class Found(NamedTuple):
    """Scores that passed their query's limit."""

    queries: np.ndarray  # [n] rows, ascending
    columns: np.ndarray  # [n] rows of the gallery
    scores: np.ndarray  # [n] approximate


class Visitor(Protocol):
    """Who looks at all scores of queries with a gallery. Different queries come in parallel."""

    queries: VectorSet
    gallery: VectorSet

    def limits(self, rows: slice, bound: Bound) -> np.ndarray:
        """For some queries the least approximate score [n] of interest; -inf: all are."""

    def take(self, found: Found, bound: Bound) -> None:
        """Scores that passed; they may have passed limits of a while ago."""

    def visit(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """A whole strip whose first query is `row`, first gallery row `column`; may overwrite."""


def show(
    visitor: Visitor,
    tile: Tile,
    rows: slice,
    columns: slice,
    both: bool,
    pool: ThreadPoolExecutor,
    threads: int,
) -> None:
    """Show a tile for the queries `rows` and, if `both`, turned for the queries `columns` too."""
    limits = visitor.limits(rows, tile.bound)
    turned = visitor.limits(columns, tile.bound) if both else None
    whole = turned is not None and bool(np.isneginf(turned).any())

    def work(part: slice) -> tuple[Found | None, Found | None]:
        scores = tile.rows(part)
        row, column = rows.start + part.start, columns.start
        below = None if turned is None or whole else _above(scores, turned[None, :])
        if below is not None:
            below = Found(below.columns + column, below.queries + row, below.scores)
        beside = _above(scores, limits[part, None])
        if beside is None:
            for some in blocks(len(scores), max(1, WHOLE // scores.shape[1])):
                visitor.visit(scores[some], row + some.start, column, tile.bound)
            return None, below
        return Found(beside.queries + row, beside.columns + column, beside.scores), below

    height = max(1, STRIP // max(1, columns.stop - columns.start))
    found = list(pool.map(work, blocks(rows.stop - rows.start, height)))
    _take(visitor, [beside for beside, _ in found], tile.bound, pool, threads)
    if not both:
        return
    if whole or any(below is None for _, below in found):
        _visit_columns(visitor, tile, rows, columns, pool)
    else:
        _take(visitor, [below for _, below in found], tile.bound, pool, threads)


def _above(scores: np.ndarray, limits: np.ndarray) -> Found | None:
    """The scores [n, m] that reach the limits [n, 1] or [1, m]; None if they are very many."""
    if np.isneginf(limits).any():
        return None
    least = np.nextafter(limits.astype(scores.dtype), -np.inf)
    mask = scores >= least
    if np.count_nonzero(mask) > DENSE * mask.size:
        return None
    flat = np.flatnonzero(mask)
    return Found(*np.divmod(flat, scores.shape[1]), scores.ravel()[flat])


def _take(
    visitor: Visitor,
    found: Sequence[Found | None],
    bound: Bound,
    pool: ThreadPoolExecutor,
    threads: int,
) -> None:
    """Let `visitor` take what was found, different queries in parallel."""
    some = [part for part in found if part is not None]
    if not sum(len(part.queries) for part in some):
        return
    queries, columns, scores = (np.concatenate(arrays) for arrays in zip(*some, strict=True))
    order = np.argsort(queries, kind="stable")
    one = Found(queries[order], columns[order], scores[order])
    list(pool.map(lambda part: visitor.take(part, bound), _shares(one, threads)))


def _shares(found: Found, number: int) -> Iterator[Found]:
    """About equal parts with all of a query's scores in one of them."""
    middles = np.arange(1, number) * len(found.queries) // number
    cuts = np.searchsorted(found.queries, found.queries[middles])
    for start, stop in itertools.pairwise([0, *cuts.tolist(), len(found.queries)]):
        if start < stop:
            yield Found(*(array[start:stop] for array in found))


def _visit_columns(
    visitor: Visitor, tile: Tile, rows: slice, columns: slice, pool: ThreadPoolExecutor
) -> None:
    def work(part: slice) -> None:
        visitor.visit(tile.columns(part), columns.start + part.start, rows.start, tile.bound)

    height = max(1, WHOLE // max(1, rows.stop - rows.start))
    list(pool.map(work, blocks(columns.stop - columns.start, height)))
