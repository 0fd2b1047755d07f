"""Rows ready for other libraries, and the nearest centres of rows by exact search."""

from dataclasses import dataclass

import numpy as np

from mltool.errors import NotFiniteError
from mltool.exact.blocks import split_rows
from mltool.exact.knn import Resources, find_neighbors
from mltool.exact.vector_set import Matrix, make_vector_sets
from mltool.files.concatenated_rows import release

BLOCK = 2**14  # rows converted at a time


@dataclass(frozen=True, eq=False)
class ScaledRows:
    """A copy of some rows that no square over- or underflows."""

    rows: np.ndarray  # [n, D] float32, contiguous; of unit length for cosine, zeros stay zeros
    factor: float  # a power of two: these rows / factor are the stored ones; 1 for cosine


def scale_rows(vectors: Matrix, rows: np.ndarray, metric: str) -> ScaledRows:
    """Copy `rows` [n] of vectors [N, D]: as directions for cosine, else none longer than 1.

    Raises NotFiniteError for NaN and infinity.
    """
    norms = np.empty(len(rows))
    for block in split_rows(len(rows), BLOCK):
        values = vectors[rows[block]].astype(np.float64)
        norms[block] = np.sqrt(np.einsum("nd,nd->n", values, values))
        release(vectors)  # else rows drawn from all over a file map the whole of it
    broken = int(np.count_nonzero(~np.isfinite(norms)))
    if broken:
        raise NotFiniteError(f"{broken} vectors hold NaN or infinite values; embed them again")
    largest = float(norms.max(initial=0.0))
    factor = 2.0 ** -np.ceil(np.log2(largest)) if largest > 0 and metric != "cosine" else 1.0
    factors = np.full(len(rows), factor)
    if metric == "cosine":
        factors = np.divide(1.0, norms, out=np.zeros(len(rows)), where=norms > 0)
    copy = np.empty((len(rows), vectors.shape[1]), np.float32)
    for block in split_rows(len(rows), BLOCK):
        copy[block] = vectors[rows[block]].astype(np.float64) * factors[block, None]
        release(vectors)
    return ScaledRows(copy, float(factor))


def assign(
    vectors: Matrix, centres: np.ndarray, metric: str, resources: Resources
) -> tuple[np.ndarray, np.ndarray]:
    """Find the nearest of centres [K, D] for each row of vectors [N, D], ties to the lower number.

    Returns its number [N] and the Euclidean distances [N, 2] to it and to the second nearest,
    infinite where there is no second. For cosine they are those of rows of unit length.
    """
    digits = len(str(len(centres)))
    numbers = np.char.zfill(np.arange(len(centres)).astype("S"), digits)  # ties go by name
    left, right = make_vector_sets(
        (vectors, np.broadcast_to(np.bytes_("a row"), len(vectors))),
        (centres, numbers),
        metric="cosine" if metric == "cosine" else "euclidean",
    )
    nearest = find_neighbors(left, right, k=2, self_rows=None, resources=resources)
    if metric == "cosine":
        distances = np.sqrt(np.maximum(2.0 - 2.0 * nearest.scores, 0.0))
    else:
        distances = -nearest.scores
    return nearest.rows[:, 0], distances


def compare_distances(distances: np.ndarray) -> np.ndarray:
    """Return the confidence 1 - d_1 / d_2 [N] of the nearest and second nearest [N, 2]."""
    first, second = distances.T
    return 1.0 - np.divide(first, second, out=np.ones(len(first)), where=second > 0)
