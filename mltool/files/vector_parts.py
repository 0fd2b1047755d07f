"""The parts of a vector that were trained by learners: bounds of columns, `/parts` of a file.

Sanakoyeu, Tschernezki, Buechler, Ommer, "Divide and Conquer the Embedding Space for Metric
Learning", CVPR 2019: learner k owns one slice of the embedding. The whole vector is what the file
holds; the bounds say where its slices begin and end.
"""

import numpy as np

from mltool.errors import InputError

Bounds = tuple[tuple[int, int], ...]  # first column and the column after the last, of each part


def check_bounds(parts: Bounds, dim: int) -> None:
    """Raise InputError unless every part is a column or more of vectors of `dim` columns."""
    for number, (start, stop) in enumerate(parts):
        if not 0 <= start < stop <= dim:
            raise InputError(
                f"part {number} lies in columns {start} to {stop} of vectors of {dim}; embed again"
            )


def to_rows(parts: Bounds) -> np.ndarray:
    """Return bounds as a file stores them: [K, 2] int64."""
    return np.array(parts, "<i8").reshape(-1, 2)


def from_rows(rows: np.ndarray) -> Bounds:
    """Return the bounds that a file stores as integers [K, 2]. Raises InputError."""
    if rows.shape[1] != 2:
        raise InputError(f"/parts holds {rows.shape[1]} columns instead of 2; embed again")
    return tuple((int(start), int(stop)) for start, stop in rows.tolist())
