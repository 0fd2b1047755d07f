"""Cutting rows into blocks and working on them on all cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mltool.processors import usable_cores


def blocks(count: int, size: int) -> Iterator[slice]:
    """Slices of `size` rows that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def in_parallel(work: Callable[[slice], None], rows: slice, size: int) -> None:
    """Call `work` on blocks of `size` rows that cover `rows`, some at a time."""
    starts = range(rows.start, rows.stop, size)
    parts = [slice(start, min(start + size, rows.stop)) for start in starts]
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(work, parts))
