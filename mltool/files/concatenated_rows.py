"""Several matrices, such as the maps of shards, read as one without a copy."""

import mmap
from collections.abc import Sequence

import numpy as np


class ConcatenatedRows:
    """Matrices [n, D] one below the other, with as much of an array's interface as readers use.

    With `rows` [N], row n is row rows[n] of the concatenation. Indexing gives an array: a view if,
    without `rows`, the slice lies in one matrix, else a copy.
    """

    ndim = 2

    def __init__(
        self, matrices: "Sequence[np.ndarray | ConcatenatedRows]", rows: np.ndarray | None = None
    ) -> None:
        """Concatenate at least one matrix, all of one width. Raises ValueError otherwise."""
        if len({matrix.shape[1] for matrix in matrices}) != 1:
            raise ValueError(
                f"matrices of different widths: {[matrix.shape for matrix in matrices]}"
            )
        self.matrices: list[np.ndarray] = []
        self.rows: np.ndarray | None = rows
        for matrix in matrices:
            if isinstance(matrix, ConcatenatedRows) and matrix.rows is not None:
                raise ValueError("a matrix whose rows are in another order")
            self.matrices += matrix.matrices if isinstance(matrix, ConcatenatedRows) else [matrix]
        self.starts = np.cumsum([0, *map(len, self.matrices)])
        height = int(self.starts[-1]) if rows is None else len(rows)
        self.shape: tuple[int, int] = height, self.matrices[0].shape[1]
        self.dtype = np.result_type(*self.matrices)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice | np.ndarray) -> np.ndarray:
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step != 1 or self.rows is not None:
                return self[np.arange(start, stop, step)]
            views = [view.astype(self.dtype, copy=False) for view in self._cut(start, stop)]
            return views[0] if len(views) == 1 else np.concatenate(views)
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        rows = rows if self.rows is None else self.rows[rows]
        result = np.empty((len(rows), self.shape[1]), self.dtype)
        numbers = np.searchsorted(self.starts, rows, side="right") - 1
        for number in np.unique(numbers):
            inside = numbers == number
            result[inside] = self.matrices[number][rows[inside] - self.starts[number]]
        return result

    def __array__(
        self, dtype: np.dtype | type | None = None, copy: bool | None = None
    ) -> np.ndarray:
        if copy is False:
            raise ValueError("several matrices cannot become one without a copy")
        whole = np.concatenate(self.matrices) if self.rows is None else self[:]
        return whole.astype(dtype or self.dtype, copy=False)

    def view(self, rows: slice) -> "ConcatenatedRows":
        """Return consecutive rows without a copy."""
        start, stop, _ = rows.indices(len(self))
        if self.rows is not None:
            return ConcatenatedRows(self.matrices, self.rows[start:stop])
        return ConcatenatedRows(self._cut(start, stop))

    def _cut(self, start: int, stop: int) -> list[np.ndarray]:
        """Return views of the matrices between two rows, at least one view."""
        pairs = zip(self.starts.tolist(), self.matrices, strict=False)
        views = [matrix[max(0, start - at) : max(0, stop - at)] for at, matrix in pairs]
        return [view for view in views if len(view)] or views[:1]


def release(vectors: np.ndarray | ConcatenatedRows) -> None:
    """Release the pages of memory maps from this process; the system may keep them cached."""
    for matrix in vectors.matrices if isinstance(vectors, ConcatenatedRows) else [vectors]:
        base: object = matrix
        owner = matrix
        while isinstance(base, np.ndarray):
            owner, base = base, base.base
        # a writable map may hold what is not in its file: giving that back would lose it
        can = hasattr(mmap, "MADV_DONTNEED")
        if can and isinstance(base, mmap.mmap) and not owner.flags.writeable:
            base.madvise(mmap.MADV_DONTNEED)
