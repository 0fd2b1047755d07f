"""One side of a comparison, and the one routine that scores pairs exactly.

Scores are defined here and nowhere else: float64, larger = closer, and such that no row counts as
longer than 1. Cosine: the product of two rows times one over their norms (a zero row scores 0 with
everything); dot: the product times a power of two; euclidean: minus the squared distance times a
power of two.
"""

from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError, NotFiniteError
from mltool.exact.blocks import blocks, in_parallel
from mltool.files.concatenated_rows import ConcatenatedRows, release
from mltool.files.names import examples

CHUNK = 4096  # components summed at a time; numpy's own buffers would split longer rows anyhow
CACHED = 2**17  # float64 components worked on at a time: they stay in a core's cache
ROWS = 4096  # rows compared at a time to find equal ones
MAPPED = 2**24  # components of a map read between two times that its pages are given back
USUAL = 2.0**-100, 2.0**100  # factors that float32 multiplies by without over- or underflow


@dataclass(frozen=True, eq=False)
class VectorSet:
    """Vectors with what ordering them needs; made by `side` or `sides`."""

    vectors: np.ndarray | ConcatenatedRows  # [N, D] floats, perhaps memory maps
    factors: np.ndarray  # [N] float64 that bring each row's norm to at most 1
    squares: np.ndarray  # [N] float64, that norm's square
    keys: np.ndarray  # [N] float64, equal for equal rows and else hardly ever
    names: np.ndarray  # [N] 'S'
    metric: str

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def dim(self) -> int:
        return self.vectors.shape[1]

    def prepared(self, rows: slice | np.ndarray) -> np.ndarray:
        """The rows times their factors, float64 [n, D]; their products are the scores, nearly."""
        block = self.vectors[rows].astype(np.float64)
        block *= self.factors[rows, None]
        return block

    def rounded(self, rows: slice) -> np.ndarray:
        """The same in float32, each row at most 2**-22 from it."""
        factors = self.factors[rows]
        used = factors[factors != 0]
        if len(used) and not USUAL[0] < used.min() <= used.max() < USUAL[1]:
            return self.prepared(rows).astype(np.float32)
        block = self.vectors[rows]
        return np.multiply(block, factors[:, None].astype(np.float32), dtype=np.float32)

    def part(self, rows: slice) -> "VectorSet":
        """The same for some of the rows."""
        vectors = self.vectors
        cut = vectors.part(rows) if isinstance(vectors, ConcatenatedRows) else vectors[rows]
        return self._with(cut, rows)

    def take(self, rows: np.ndarray) -> "VectorSet":
        """The same for the rows given by number, copied."""
        return self._with(self.vectors[rows], rows)

    def places(self) -> np.ndarray:
        """Place of each row [N] in the order of the names' UTF-8 bytes: the order of ties."""
        if (self.names[1:] >= self.names[:-1]).all():
            return np.arange(len(self))
        places = np.empty(len(self), np.int64)
        places[np.argsort(self.names, kind="stable")] = np.arange(len(self))
        return places

    def _with(
        self, vectors: np.ndarray | ConcatenatedRows, rows: slice | np.ndarray
    ) -> "VectorSet":
        factors, squares, keys = self.factors[rows], self.squares[rows], self.keys[rows]
        return VectorSet(vectors, factors, squares, keys, self.names[rows], self.metric)


def make_vector_sets(
    queries: tuple[np.ndarray | ConcatenatedRows, np.ndarray],
    gallery: tuple[np.ndarray | ConcatenatedRows, np.ndarray] | None,
    *,
    metric: str,
) -> tuple[VectorSet, VectorSet]:
    """Both sides of a comparison from (vectors [N, D], names [N]); no gallery = all against all.

    Raises InputError for values that are not finite and for different dimensions.
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
        factors = _factors(norms, metric, 2.0**-exponent)
        made.append(VectorSet(vectors, factors, (norms * factors) ** 2, keys, names, metric))
    return made[0], made[-1]


def score_pairs(
    queries: VectorSet, query_rows: np.ndarray, gallery: VectorSet, gallery_rows: np.ndarray
) -> np.ndarray:
    """Exact scores [n] of n pairs. The same pair has the same bits in every call."""
    scores = np.empty(len(query_rows))
    for part in blocks(len(query_rows), max(1, CACHED // max(1, queries.dim))):
        left = queries.vectors[query_rows[part]].astype(np.float64)
        right = gallery.vectors[gallery_rows[part]].astype(np.float64)
        if gallery.metric == "euclidean":
            right -= left
            scores[part] = -_sum("nd,nd->n", right, right)
        else:
            scores[part] = _sum("nd,nd->n", left, right)
    return scores * (queries.factors[query_rows] * gallery.factors[gallery_rows])


def score_table(
    queries: VectorSet, query_rows: np.ndarray, gallery: VectorSet, gallery_rows: np.ndarray
) -> np.ndarray:
    """Exact scores [n, m] of n queries with m gallery rows, the bits of `score_pairs`."""
    if queries.metric == "euclidean":
        rows = np.repeat(query_rows, len(gallery_rows))
        columns = np.tile(gallery_rows, len(query_rows))
        scores = score_pairs(queries, rows, gallery, columns)
        return scores.reshape(len(query_rows), len(gallery_rows))
    left = queries.vectors[query_rows].astype(np.float64)
    right = gallery.vectors[gallery_rows].astype(np.float64)
    factors = np.multiply.outer(queries.factors[query_rows], gallery.factors[gallery_rows])
    return _sum("nd,md->nm", left, right) * factors


def originals(side: VectorSet) -> np.ndarray | None:
    """For each row the first row that equals it [N]; None where all rows differ."""
    order = np.argsort(side.keys, kind="stable")
    keys = side.keys[order]
    same = np.flatnonzero(keys[1:] == keys[:-1]) + 1  # equal keys are equal rows, very likely
    equal = np.zeros(len(order), bool)
    for start in range(0, len(same), ROWS):
        rows = same[start : start + ROWS]
        equal[rows] = (side.vectors[order[rows]] == side.vectors[order[rows - 1]]).all(axis=1)
    if not equal.any():
        return None
    first = np.maximum.accumulate(np.where(equal, 0, np.arange(len(order))))
    result = np.empty(len(order), np.int64)
    result[order] = order[first]
    return result


def public(scores: np.ndarray, side: VectorSet) -> np.ndarray:
    """Scores in the units of the vectors: cosine, dot product, or minus the distance."""
    if side.metric == "cosine" or not len(side):
        return scores
    factor = side.factors[0]  # the same for all rows
    if side.metric == "dot":
        return scores / factor**2
    return -np.sqrt(-np.minimum(scores, 0.0)) / factor


def _sum(subscripts: str, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    # einsum adds the products of one pair of rows in an order that depends on their length alone
    # (a test holds it to that); a matrix product would not
    total = np.einsum(subscripts, left[..., :CHUNK], right[..., :CHUNK])
    for start in range(CHUNK, left.shape[1], CHUNK):
        part = slice(start, start + CHUNK)
        total += np.einsum(subscripts, left[..., part], right[..., part])
    return total


def _factors(norms: np.ndarray, metric: str, scale: float) -> np.ndarray:
    if metric != "cosine":
        return np.full(len(norms), scale)
    return np.where(norms > 0, 1.0 / np.where(norms > 0, norms, 1.0), 0.0)


def _measure(
    vectors: np.ndarray | ConcatenatedRows, names: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Norms and keys [N] of the rows. Raises InputError for values that are not finite."""
    norms, keys = np.empty(len(vectors)), np.empty(len(vectors))
    direction = np.random.default_rng(0).standard_normal((1, vectors.shape[1]))

    def work(part: slice) -> None:
        block = vectors[part].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms[part] = np.sqrt(_sum("nd,nd->n", block, block))
            keys[part] = _sum("nd,md->nm", block, direction)[:, 0]

    for rows in blocks(len(vectors), max(1, MAPPED // vectors.shape[1])):
        in_parallel(work, rows, max(1, CACHED // vectors.shape[1]))
        release(vectors)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        raise NotFiniteError(
            f"{len(bad)} vectors hold NaN or infinite values, the first is that of "
            f"{examples(names[bad], 1)}; embed again with a model that is not damaged"
        )
    return norms, keys
