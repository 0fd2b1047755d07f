"""Sweep over all pairs of queries and gallery rows, tile by tile, within a memory limit.

Queries in blocks 0 and 1 and a gallery in blocks 0, 1 and 2 make six tiles: (0, 0), (0, 1), (0, 2),
(1, 0), (1, 1), (1, 2). All against all with blocks 0, 1 and 2 makes six as well, because a tile
above the diagonal serves both of its sides: (0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2).

>>> import numpy as np
>>> from mltool.exact.vector_set import make_vector_sets
>>> rows, _ = make_vector_sets(
...     (np.ones((300, 4), np.float32), np.arange(300).astype("S")), None, metric="dot"
... )
>>> plan = plan_sweep(rows, rows, "float32", max_memory=2**22, threads=1)
>>> plan.block, plan.keep, plan.peak_bytes < 2**22  # tiles of 128 x 128 are the largest that fit
(128, True, True)

Threads: the thread that calls `sweep` makes the tiles, one after the other; `scan` scans each in
parallel and says what its visitor sees from which thread.
"""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mltool.errors import ResourceError
from mltool.exact.blocks import split_rows
from mltool.exact.error_bounds import Precision
from mltool.exact.products import Products
from mltool.exact.scan import DENSE_STRIP, STRIP, Visitor, scan
from mltool.exact.tile import Operand
from mltool.exact.vector_set import VectorSet
from mltool.files.concatenated_rows import release

BLOCKS = (4096, 2048, 1024, 512, 256, 128)  # rows of a block, the largest that fits
WIDEST = 4  # bytes of a stored component
STRIP_BYTES, DENSE_BYTES = 8, 64  # temporary bytes for each score compared, or handed over whole


@dataclass(frozen=True)
class SweepPlan:
    """How a sweep is cut; made by `plan_sweep`."""

    block: int  # rows of a block, of queries and of the gallery
    keep: bool  # rounded rows of the gallery stay in memory
    threads: int
    release: bool  # pages of mapped vectors are given back after each tile
    peak_bytes: int  # what the sweep allocates at most, beside its result


def plan_sweep(
    queries: VectorSet, gallery: VectorSet, precision: Precision, *, max_memory: int, threads: int
) -> SweepPlan:
    """Choose the largest blocks within `max_memory` bytes. Raises ResourceError if none fits."""
    width = {"float64": 8, "float32": 4, "bfloat16": 2}[precision]
    tile = {"float64": 8, "float32": 4, "bfloat16": 4}[precision]
    mutual = queries is gallery
    mapped = sum(len(each) * each.dim * WIDEST for each in (queries, gallery))
    for block in BLOCKS:
        rows, columns = (max(1, min(block, len(each))) for each in (queries, gallery))
        # what is used once need not be kept
        kept = len(gallery) * gallery.dim * width * (mutual or len(queries) > block)
        scores = rows * columns
        strip = min(STRIP, scores) * STRIP_BYTES + min(DENSE_STRIP, scores) * DENSE_BYTES
        peak = scores * tile + (rows + columns) * queries.dim * (8 + width) + strip * threads
        if peak <= max_memory:
            keep = 0 < kept <= max_memory - peak
            peak += kept * keep
            return SweepPlan(block, keep, threads, peak + mapped > max_memory, peak)
    raise ResourceError(
        f"searching {len(queries)} x {len(gallery)} vectors of {gallery.dim} dimensions takes at "
        f"least {peak / 2**20:.0f} MiB; raise --max-memory"
    )


def sweep(visitor: Visitor, *, products: Products, plan: SweepPlan) -> None:
    """Scan the scores of every query with every gallery row for `visitor`.

    If queries and gallery are the same object, every product serves both of its rows.
    """
    queries, gallery = visitor.queries, visitor.gallery
    mutual = queries is gallery
    operands = _GalleryOperands(gallery, products, plan)
    with products.exclusive(), ThreadPoolExecutor(plan.threads) as pool:
        for i, rows in enumerate(split_rows(len(queries), plan.block)):
            left = operands.get(i) if mutual else products.make_operand(queries, rows)
            for j, columns in enumerate(split_rows(len(gallery), plan.block)):
                if mutual and j < i:
                    continue
                right = left if mutual and i == j else operands.get(j)
                tile = products.multiply(left, right, gallery)
                # a tile on the diagonal holds both orders of its pairs already
                scan(visitor, tile, rows, columns, mutual and i != j, pool, plan.threads)
                if plan.release:
                    release(queries.vectors)
                    release(gallery.vectors)
    release(queries.vectors)
    release(gallery.vectors)


class _GalleryOperands:
    """The gallery's blocks, rounded once and kept, or rounded again for each use."""

    def __init__(self, gallery: VectorSet, products: Products, plan: SweepPlan) -> None:
        self._make = lambda rows: products.make_operand(gallery, rows)
        self._rows = list(split_rows(len(gallery), plan.block))
        self._keep = plan.keep
        self._kept: dict[int, Operand] = {}

    def get(self, number: int) -> Operand:
        """Return the operand of a block."""
        if number in self._kept:
            return self._kept[number]
        operand = self._make(self._rows[number])
        if self._keep:
            self._kept[number] = operand
        return operand
