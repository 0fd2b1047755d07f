"""Walking over all pairs of two sides block by block, on all cores, within a memory limit."""

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from mltool.errors import ResourceError
from mltool.retrieval._products import Bound, Operand, Precision, Products, scores_of
from mltool.retrieval._vectors import Side, release

# visit(scores [b, n], first query row, first gallery row, bound): may overwrite the scores
Visit = Callable[[np.ndarray, int, int, Bound], None]

BLOCKS = (4096, 2048, 1024, 512, 256, 128)  # rows of a block, the largest that fits
STRIP = 2**19  # scores that one visit sees: they stay in a core's cache
STRIP_BYTES = 64  # temporary bytes of a visit for each of its scores
SQUARE = 64  # side of the squares in which a block is transposed: fewer pages than a TLB holds


@dataclass(frozen=True)
class Plan:
    """How a sweep is cut; chosen by `plan`."""

    block: int  # rows of a block on either side
    keep: bool  # rounded rows of the gallery stay in memory
    threads: int
    peak_bytes: int  # what the sweep allocates at most, beside its result


def plan(
    queries: Side, gallery: Side, precision: Precision, *, max_memory: int, threads: int
) -> Plan:
    """The largest blocks within `max_memory` bytes. Raises ResourceError if none fits."""
    width = {"float64": 8, "float32": 4, "bfloat16": 2}[precision]
    tile = {"float64": 8, "float32": 4, "bfloat16": 6}[precision]
    longest = max(len(queries), len(gallery), 1)
    kept = len(gallery) * gallery.dim * width
    for block in BLOCKS:
        rows = min(block, longest)
        strip = min(STRIP, rows * rows) * STRIP_BYTES * threads
        peak = rows * rows * tile + 2 * rows * queries.dim * (16 + width) + strip
        if peak <= max_memory:
            keep = peak + kept <= max_memory
            return Plan(block, keep, threads, peak + kept * keep)
    raise ResourceError(
        f"searching {len(queries)} x {len(gallery)} vectors of {gallery.dim} dimensions takes at "
        f"least {peak / 2**20:.0f} MiB; raise --max-memory"
    )


def sweep(queries: Side, gallery: Side, visit: Visit, *, products: Products, plan: Plan) -> None:
    """Show `visit` the scores of every pair once, strips of a block at a time and in parallel.

    With queries and gallery being the same object every product serves both of its sides. Strips
    that are visited at the same time hold different queries.
    """
    mutual = queries is gallery
    operands = _Operands(gallery, products, plan)
    with ThreadPoolExecutor(plan.threads) as pool:
        for i, rows in enumerate(blocks(len(queries), plan.block)):
            left = operands.of(i) if mutual else products.operand(queries, rows)
            for j, columns in enumerate(blocks(len(gallery), plan.block)):
                if mutual and j < i:
                    continue
                right = left if mutual and i == j else operands.of(j)
                scores, bound = scores_of(products, left, right, gallery)
                _visit_rows(pool, visit, scores, rows.start, columns.start, bound)
                if mutual and i != j:
                    _visit_columns(pool, visit, scores, columns.start, rows.start, bound)
            release(queries.vectors)
            release(gallery.vectors)


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def cores() -> int:
    """The processors that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


class _Operands:
    """The gallery's blocks, rounded once and kept, or rounded again for each use."""

    def __init__(self, gallery: Side, products: Products, plan: Plan) -> None:
        self._make = lambda rows: products.operand(gallery, rows)
        self._rows = list(blocks(len(gallery), plan.block))
        self._keep = plan.keep
        self._kept: dict[int, Operand] = {}

    def of(self, number: int) -> Operand:
        if number in self._kept:
            return self._kept[number]
        made = self._make(self._rows[number])
        if self._keep:
            self._kept[number] = made
        return made


def _visit_rows(
    pool: ThreadPoolExecutor, visit: Visit, scores: np.ndarray, row: int, column: int, bound: Bound
) -> None:
    def work(part: slice) -> None:
        visit(scores[part], row + part.start, column, bound)

    list(pool.map(work, blocks(len(scores), _height(scores.shape[1]))))


def _visit_columns(
    pool: ThreadPoolExecutor, visit: Visit, scores: np.ndarray, row: int, column: int, bound: Bound
) -> None:
    def work(part: slice) -> None:
        turned = np.empty((part.stop - part.start, len(scores)), scores.dtype)
        for square in blocks(len(scores), SQUARE):
            turned[:, square] = scores[square, part].T
        visit(turned, row + part.start, column, bound)

    list(pool.map(work, blocks(scores.shape[1], _height(len(scores)))))


def _height(width: int) -> int:
    return max(1, STRIP // max(1, width))
