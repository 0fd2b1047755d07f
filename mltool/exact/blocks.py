"""Split rows into blocks, and work on several blocks at a time.

>>> list(split_rows(10, 4))
[slice(0, 4, None), slice(4, 8, None), slice(8, 10, None)]
>>> import numpy as np
>>> squares = np.arange(10.0)
>>> def square(rows: slice) -> None:
...     squares[rows] **= 2
>>> run_parallel(square, slice(6, 10), 2)  # rows 6 and 7 in one thread, 8 and 9 in another
>>> squares[5:].tolist()
[5.0, 36.0, 49.0, 64.0, 81.0]

Threads: blocks never overlap, so work that writes only to the rows of its block needs no lock. All
heavy work is numpy's, which lets other threads run meanwhile.
"""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

from mltool.processors import usable_cores


def split_rows(count: int, size: int) -> Iterator[slice]:
    """Yield slices of `size` rows, the last perhaps shorter, that cover `count` rows."""
    for start in range(0, count, size):
        yield slice(start, min(start + size, count))


def run_parallel(work: Callable[[slice], None], rows: slice, size: int) -> None:
    """Call `work` on blocks of `size` rows that cover `rows`, on all cores.

    Returns when all calls are done; the first error that a call raises is raised again.
    """
    starts = range(rows.start, rows.stop, size)
    blocks = [slice(start, min(start + size, rows.stop)) for start in starts]
    with ThreadPoolExecutor(usable_cores()) as pool:
        list(pool.map(work, blocks))
