"""Matrices in several places, such as the maps of shards, read as one without being copied."""

import mmap
from collections.abc import Sequence

import numpy as np


class ConcatenatedRows:
    """Matrices [n, D] one below the other: as much of an array as readers of rows need.

    With `rows` [N], row n is row rows[n] of what is stacked. Rows come as arrays: without `rows`, a
    slice that lies in one part is a view of it; all else is a copy.
    """

    ndim = 2

    def __init__(
        self, parts: "Sequence[np.ndarray | ConcatenatedRows]", rows: np.ndarray | None = None
    ) -> None:
        """Of `parts`, at least one, of the same width, in order. Raises ValueError otherwise."""
        if len({part.shape[1] for part in parts}) != 1:
            raise ValueError(f"parts of different widths: {[part.shape for part in parts]}")
        self.parts: list[np.ndarray] = []
        self.rows: np.ndarray | None = rows
        for part in parts:
            if isinstance(part, ConcatenatedRows) and part.rows is not None:
                raise ValueError("a part whose rows are in another order")
            self.parts += part.parts if isinstance(part, ConcatenatedRows) else [part]
        self.starts = np.cumsum([0, *map(len, self.parts)])
        height = int(self.starts[-1]) if rows is None else len(rows)
        self.shape: tuple[int, int] = height, self.parts[0].shape[1]
        self.dtype = np.result_type(*self.parts)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1 or self.rows is not None:
                return self[np.arange(start, stop, step)]
            found = [part.astype(self.dtype, copy=False) for part in self._cut(start, stop)]
            return found[0] if len(found) == 1 else np.concatenate(found)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        rows = rows if self.rows is None else self.rows[rows]
        result = np.empty((len(rows), self.shape[1]), self.dtype)
        owner = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(owner):
            mine = owner == number
            result[mine] = self.parts[number][rows[mine] - self.starts[number]]
        return result

    def __array__(
        self, dtype: np.dtype | type | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError("several matrices cannot become one without a copy")
        whole = np.concatenate(self.parts) if self.rows is None else self[:]
        return whole.astype(dtype or self.dtype, copy=False)

    def part(self, rows: slice) -> "ConcatenatedRows":
        """Consecutive rows, not copied."""
        start, stop, _ = rows.indices(len(self))
        if self.rows is not None:
            return ConcatenatedRows(self.parts, self.rows[start:stop])
        return ConcatenatedRows(self._cut(start, stop))

    def _cut(self, start: int, stop: int) -> list[np.ndarray]:
        """Views of what lies between two rows, at least one."""
        pairs = zip(self.starts.tolist(), self.parts, strict=False)
        cut = [part[max(0, start - at) : max(0, stop - at)] for at, part in pairs]
        return [part for part in cut if len(part)] or cut[:1]


def release(vectors: np.ndarray | ConcatenatedRows) -> None:
    """Give the pages of memory maps back to the system, which keeps them cached as it can."""
    for part in vectors.parts if isinstance(vectors, ConcatenatedRows) else [vectors]:
        base: object = part
        owner = part
        while isinstance(base, np.ndarray):
            owner, base = base, base.base
        # a writable map may hold what is not in its file: giving that back would lose it
        can = hasattr(mmap, "MADV_DONTNEED")
        if can and isinstance(base, mmap.mmap) and not owner.flags.writeable:
            base.madvise(mmap.MADV_DONTNEED)
