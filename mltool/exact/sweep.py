"""Walking over all pairs of two sides block by block, on all cores, within a memory limit."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from mltool.errors import ResourceError
from mltool.exact.blocks import blocks
from mltool.exact.error_bounds import Precision
from mltool.exact.products import Products
from mltool.exact.scan import STRIP, WHOLE, Visitor, show
from mltool.exact.tile import Operand
from mltool.exact.vector_set import VectorSet
from mltool.files.concatenated_rows import release

BLOCKS = (4096, 2048, 1024, 512, 256, 128)  # rows of a block, the largest that fits
WIDEST = 4  # bytes of a stored component
STRIP_BYTES, WHOLE_BYTES = 8, 64  # temporary bytes for each score compared, or shown whole


@dataclass(frozen=True)
class Plan:
    """How a sweep is cut; chosen by `plan`."""

    block: int  # rows of a block on either side
    keep: bool  # rounded rows of the gallery stay in memory
    threads: int
    release: bool  # pages of mapped vectors are given back after each tile
    peak_bytes: int  # what the sweep allocates at most, beside its result


def plan(
    queries: VectorSet, gallery: VectorSet, precision: Precision, *, max_memory: int, threads: int
) -> Plan:
    """The largest blocks within `max_memory` bytes. Raises ResourceError if none fits."""
    width = {"float64": 8, "float32": 4, "bfloat16": 2}[precision]
    tile = {"float64": 8, "float32": 4, "bfloat16": 4}[precision]
    mutual = queries is gallery
    mapped = sum(len(side) * side.dim * WIDEST for side in (queries, gallery))
    for block in BLOCKS:
        rows, columns = (max(1, min(block, len(side))) for side in (queries, gallery))
        # what is used once need not be kept
        kept = len(gallery) * gallery.dim * width * (mutual or len(queries) > block)
        scores = rows * columns
        strip = min(STRIP, scores) * STRIP_BYTES + min(WHOLE, scores) * WHOLE_BYTES
        peak = scores * tile + (rows + columns) * queries.dim * (8 + width) + strip * threads
        if peak <= max_memory:
            keep = 0 < kept <= max_memory - peak
            peak += kept * keep
            return Plan(block, keep, threads, peak + mapped > max_memory, peak)
    raise ResourceError(
        f"searching {len(queries)} x {len(gallery)} vectors of {gallery.dim} dimensions takes at "
        f"least {peak / 2**20:.0f} MiB; raise --max-memory"
    )


def sweep(visitor: Visitor, *, products: Products, plan: Plan) -> None:
    """Show the scores of every pair of rows to `visitor` once, in parallel.

    With queries and gallery being the same object every product serves both of its sides. Scores
    that are shown at the same time are of different queries.
    """
    queries, gallery = visitor.queries, visitor.gallery
    mutual = queries is gallery
    operands = _Operands(gallery, products, plan)
    with products.alone(), ThreadPoolExecutor(plan.threads) as pool:
        for i, rows in enumerate(blocks(len(queries), plan.block)):
            left = operands.of(i) if mutual else products.operand(queries, rows)
            for j, columns in enumerate(blocks(len(gallery), plan.block)):
                if mutual and j < i:
                    continue
                right = left if mutual and i == j else operands.of(j)
                tile = products.tile(left, right, gallery)
                show(visitor, tile, rows, columns, mutual and i != j, pool, plan.threads)
                if plan.release:
                    release(queries.vectors)
                    release(gallery.vectors)
    release(queries.vectors)
    release(gallery.vectors)


class _Operands:
    """The gallery's blocks, rounded once and kept, or rounded again for each use."""

    def __init__(self, gallery: VectorSet, products: Products, plan: Plan) -> None:
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
