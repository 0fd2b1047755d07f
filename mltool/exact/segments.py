"""Sum, search and mark inside segments: the rows of a table, or the queries of a list, laid flat.

Two queries with 3 and 2 entries lie in one array of 5, and `starts` says where each begins:

>>> sum_within(np.array([1, 0, 2, 5, 1]), np.array([0, 3, 5])).tolist()
[1, 1, 3, 5, 6]
>>> table = np.array([[1.0, 4.0, 9.0], [2.0, 2.0, 7.0]])  # each row ascending
>>> search_rows(table, np.array([0, 1]), np.array([4.0, 3.0])).tolist()  # 5 = row 1, column 2
[1, 5]
>>> merge_ranges(np.array([1, 2, 7]), np.array([4, 3, 9]), 10).tolist()
[1, 2, 3, 7, 8]

Threads: everything here is pure.
"""

import numpy as np


def sum_within(steps: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Return running sums of `steps` [P] that begin anew at each of `starts` [Q + 1]."""
    total = np.concatenate([[0], np.cumsum(steps)])
    return total[1:] - np.repeat(total[starts[:-1]], np.diff(starts))


def search_rows(table: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Find where `values` [P] belong in the ascending `rows` [P] of a table [b, n].

    Returns positions [P] in the flat table: entries of the row before them are smaller, the others
    are not. A position is the end of its row where all of it is smaller.
    """
    flat, width = table.ravel(), table.shape[1]
    low, high = rows * width, (rows + 1) * width
    # np.searchsorted takes one sorted array; here each value has its own
    for _ in range(width.bit_length()):
        middle = (low + high) // 2
        smaller = (low < high) & (flat[np.minimum(middle, flat.size - 1)] < values)
        low = np.where(smaller, middle + 1, low)
        high = np.where(smaller | (low >= high), high, middle)
    return low


def merge_ranges(low: np.ndarray, high: np.ndarray, length: int) -> np.ndarray:
    """List the positions below `length` that lie in any of the ranges low..high - 1, ascending."""
    if (low == high).all():
        return np.empty(0, np.int64)
    depth = np.zeros(length + 1, np.int64)
    np.add.at(depth, low, 1)
    np.add.at(depth, high, -1)
    return np.flatnonzero(np.cumsum(depth)[:-1] > 0)


def unsort(table: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return row and column in a table [b, n] of positions `marked` in its row-wise sorted copy."""
    rows, positions = np.divmod(marked, table.shape[1])
    # few rows have a marked entry, so argsort of these alone is cheaper than one of all
    needed, which = np.unique(rows, return_inverse=True)
    order = np.argsort(table[needed], axis=1)
    return rows, order[which, positions]
