"""Hold vectors ready to be compared, and score pairs of them exactly.

>>> queries, gallery = make_vector_sets(
...     (np.array([[3.0, 4.0]]), np.array([b"query"])),
...     (np.array([[4.0, 3.0], [0.0, 2.0]]), np.array([b"right", b"left"])),
...     metric="cosine",
... )
>>> score_pairs(queries, np.array([0, 0]), gallery, np.array([0, 1])).round(2).tolist()
[0.96, 0.8]
>>> gallery.tie_order().tolist()  # "left" comes before "right"
[1, 0]

Scores are defined here and nowhere else: float64, larger = closer, and such that no row counts as
longer than 1. Cosine: the product of two rows times one over their norms (a zero row scores 0 with
everything); dot: the product times a power of two; euclidean: minus the squared distance times a
power of two. `to_user_units` undoes the power of two.

Threads: a VectorSet never changes, so any number of threads may read it.
"""

from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError, NotFiniteError
from mltool.exact.blocks import run_parallel, split_rows
from mltool.files.concatenated_rows import ConcatenatedRows, release
from mltool.files.names import examples

SUMMED = 4096  # components summed at a time; numpy's own buffers would split longer rows anyhow
CACHED = 2**17  # float64 components worked on at a time: they stay in a core's cache
COMPARED_ROWS = 4096  # rows compared at a time to find equal ones
MAPPED = 2**24  # components of a map read between two times that its pages are given back
SAFE_FACTORS = 2.0**-100, 2.0**100  # float32 multiplies by these without over- or underflow

Matrix = np.ndarray | ConcatenatedRows


@dataclass(frozen=True, eq=False)
class VectorSet:
    """Vectors with all that comparing them needs; made by `make_vector_sets`."""

    vectors: Matrix  # [N, D] floats, perhaps memory maps
    factors: np.ndarray  # [N] float64 that bring each row's norm to at most 1
    squares: np.ndarray  # [N] float64, that norm's square
    keys: np.ndarray  # [N] float64, equal for equal rows and else hardly ever
    names: np.ndarray  # [N] 'S'
    metric: str

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        """Number of components of a row."""
        return self.vectors.shape[1]

    def scale(self, rows: slice | np.ndarray) -> np.ndarray:
        """Return rows times their factors, float64 [n, D]: their products are nearly the scores."""
        block = self.vectors[rows].astype(np.float64)
        block *= self.factors[rows, None]
        return block

    def scale_float32(self, rows: slice) -> np.ndarray:
        """Return what `scale` does in float32 [n, D], each row at most 2**-22 from it."""
        factors = self.factors[rows]
        used = factors[factors != 0]
        if len(used) and not SAFE_FACTORS[0] < used.min() <= used.max() < SAFE_FACTORS[1]:
            return self.scale(rows).astype(np.float32)
        block = self.vectors[rows]
        return np.multiply(block, factors[:, None].astype(np.float32), dtype=np.float32)

    def view(self, rows: slice) -> "VectorSet":
        """Return consecutive rows, not copied."""
        vectors = self.vectors
        cut = vectors.view(rows) if isinstance(vectors, ConcatenatedRows) else vectors[rows]
        return self._replace_vectors(cut, rows)

    def take(self, rows: np.ndarray) -> "VectorSet":
        """Return the rows of these numbers [n], copied."""
        return self._replace_vectors(self.vectors[rows], rows)

    def tie_order(self) -> np.ndarray:
        """Return each row's position [N] in the order of the names' UTF-8 bytes.

        Of two rows with equal scores the one with the lower position is the nearer.
        """
        if (self.names[1:] >= self.names[:-1]).all():
            return np.arange(len(self))
        positions = np.empty(len(self), np.int64)
        positions[np.argsort(self.names, kind="stable")] = np.arange(len(self))
        return positions

    def _replace_vectors(self, vectors: Matrix, rows: slice | np.ndarray) -> "VectorSet":
        factors, squares, keys = self.factors[rows], self.squares[rows], self.keys[rows]
        return VectorSet(vectors, factors, squares, keys, self.names[rows], self.metric)


def make_vector_sets(
    queries: tuple[Matrix, np.ndarray],
    gallery: tuple[Matrix, np.ndarray] | None,
    *,
    metric: str,
) -> tuple[VectorSet, VectorSet]:
    """Make queries and gallery from (vectors [N, D], names [N]), scaled by a common power of two.

    Without a gallery both are the same object, which searches all against all. Raises InputError
    for different dimensions, NotFiniteError for NaN and infinity.
    """
    both = [queries] if gallery is None else [queries, gallery]
    dims = {vectors.shape[1] for vectors, _ in both}
    if len(dims) > 1:
        raise InputError(
            f"the queries are {both[0][0].shape[1]}-d vectors, but the gallery holds "
            f"{both[1][0].shape[1]}-d ones; embed both with the same model"
        )
    measured = [_measure(vectors, names) for vectors, names in both]
    largest = max(float(norms.max(initial=0.0)) for norms, _ in measured)
    exponent = np.clip(np.ceil(np.log2(largest)), -500, 500) if largest > 0 else 0.0
    made = []
    for (vectors, names), (norms, keys) in zip(both, measured, strict=True):
        factors = _compute_factors(norms, metric, 2.0**-exponent)
        made.append(VectorSet(vectors, factors, (norms * factors) ** 2, keys, names, metric))
    return made[0], made[-1]


def score_pairs(
    queries: VectorSet, query_rows: np.ndarray, gallery: VectorSet, gallery_rows: np.ndarray
) -> np.ndarray:
    """Score n pairs of rows exactly: [n]. A pair has the same bits in every call."""
    scores = np.empty(len(query_rows))
    for block in split_rows(len(query_rows), max(1, CACHED // max(1, queries.dim))):
        left = queries.vectors[query_rows[block]].astype(np.float64)
        right = gallery.vectors[gallery_rows[block]].astype(np.float64)
        if gallery.metric == "euclidean":
            right -= left
            scores[block] = -_sum_products("nd,nd->n", right, right)
        else:
            scores[block] = _sum_products("nd,nd->n", left, right)
    return scores * (queries.factors[query_rows] * gallery.factors[gallery_rows])


def score_table(
    queries: VectorSet, query_rows: np.ndarray, gallery: VectorSet, gallery_rows: np.ndarray
) -> np.ndarray:
    """Score n queries with m gallery rows exactly: [n, m], the bits of `score_pairs`."""
    if queries.metric == "euclidean":
        rows = np.repeat(query_rows, len(gallery_rows))
        columns = np.tile(gallery_rows, len(query_rows))
        scores = score_pairs(queries, rows, gallery, columns)
        return scores.reshape(len(query_rows), len(gallery_rows))
    left = queries.vectors[query_rows].astype(np.float64)
    right = gallery.vectors[gallery_rows].astype(np.float64)
    factors = np.multiply.outer(queries.factors[query_rows], gallery.factors[gallery_rows])
    return _sum_products("nd,md->nm", left, right) * factors


def find_first_equal_rows(vector_set: VectorSet) -> np.ndarray | None:
    """Find for each row the first row that equals it [N]; None where all rows differ."""
    order = np.argsort(vector_set.keys, kind="stable")
    keys = vector_set.keys[order]
    # equal rows have equal keys, so they stand side by side; the reverse is only very likely
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1
    equal = np.zeros(len(order), bool)
    for start in range(0, len(same), COMPARED_ROWS):
        rows = same[start : start + COMPARED_ROWS]
        left, right = vector_set.vectors[order[rows]], vector_set.vectors[order[rows - 1]]
        equal[rows] = (left == right).all(axis=1)
    if not equal.any():
        return None
    # position, in the order of the keys, at which each run of equal rows begins
    first = np.maximum.accumulate(np.where(equal, 0, np.arange(len(order))))
    result = np.empty(len(order), np.int64)
    result[order] = order[first]
    return result


def to_user_units(scores: np.ndarray, vector_set: VectorSet) -> np.ndarray:
    """Convert scores to the units of the vectors: cosine, dot product, or minus the distance."""
    if vector_set.metric == "cosine" or not len(vector_set):
        return scores
    factor = vector_set.factors[0]  # the same for all rows
    if vector_set.metric == "dot":
        return scores / factor**2
    return -np.sqrt(-np.minimum(scores, 0.0)) / factor


def from_user_units(score: float, vector_set: VectorSet) -> float:
    """Convert a score to what `score_pairs` gives; +inf for one above every minus distance."""
    if vector_set.metric == "cosine" or not len(vector_set):
        return score
    factor = float(vector_set.factors[0])
    if vector_set.metric == "dot":
        return score * factor**2
    return np.inf if score > 0 else -((score * factor) ** 2)


def _sum_products(subscripts: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # einsum adds the products of one pair of rows in an order that depends on their length alone
    # (a test holds it to that); a matrix product would not
    total = np.einsum(subscripts, left[..., :SUMMED], right[..., :SUMMED])
    for start in range(SUMMED, left.shape[1], SUMMED):
        dims = slice(start, start + SUMMED)
        total += np.einsum(subscripts, left[..., dims], right[..., dims])
    return total


def _compute_factors(norms: np.ndarray, metric: str, scale: float) -> np.ndarray:
    if metric != "cosine":
        return np.full(len(norms), scale)
    return np.where(norms > 0, 1.0 / np.where(norms > 0, norms, 1.0), 0.0)


def _measure(vectors: Matrix, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return norms and keys [N] of the rows. Raises NotFiniteError for NaN and infinity."""
    norms, keys = np.empty(len(vectors)), np.empty(len(vectors))
    # a row's key is its product with one random direction
    direction = np.random.default_rng(0).standard_normal((1, vectors.shape[1]))

    def measure_block(rows: slice) -> None:
        block = vectors[rows].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms[rows] = np.sqrt(_sum_products("nd,nd->n", block, block))
            keys[rows] = _sum_products("nd,md->nm", block, direction)[:, 0]

    for rows in split_rows(len(vectors), max(1, MAPPED // vectors.shape[1])):
        run_parallel(measure_block, rows, max(1, CACHED // vectors.shape[1]))
        release(vectors)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise NotFiniteError(
            f"{len(bad)} vectors hold NaN or infinite values, the first is that of "
            f"{examples(names[bad], 1)}; embed again with a model that is not damaged"
        )
    return norms, keys
