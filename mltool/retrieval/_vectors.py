"""One side of a comparison, and the one routine that scores pairs exactly.

Scores are defined here and nowhere else: float64, larger = closer, and such that no row counts as
longer than 1. Cosine: the product of two rows times one over their norms (a zero row scores 0 with
everything); dot: the product times a power of two; euclidean: minus the squared distance times a
power of two.
"""

import itertools
import mmap
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError

CHUNK = 4096  # components summed at a time; numpy's own buffers would split longer rows anyhow
PAIRS = 2**20  # float64 components gathered at a time for pairs
ROWS = 4096  # rows read at a time


@dataclass(frozen=True, eq=False)
class Side:
    """Vectors with what ordering them needs; made by `side` or `sides`."""

    vectors: np.ndarray  # [N, D] floats, perhaps a memory map
    factors: np.ndarray  # [N] float64 that bring each row's norm to at most 1
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

    def part(self, rows: slice) -> "Side":
        """The same for some of the rows."""
        vectors, factors, keys = self.vectors[rows], self.factors[rows], self.keys[rows]
        return Side(vectors, factors, keys, self.names[rows], self.metric)

    def places(self) -> np.ndarray:
        """Place of each row [N] in the order of the names' UTF-8 bytes: the order of ties."""
        if (self.names[1:] >= self.names[:-1]).all():
            return np.arange(len(self))
        places = np.empty(len(self), np.int64)
        places[np.argsort(self.names, kind="stable")] = np.arange(len(self))
        return places


def sides(
    queries: tuple[np.ndarray, np.ndarray],
    gallery: tuple[np.ndarray, np.ndarray] | None,
    *,
    metric: str,
) -> tuple[Side, Side]:
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
    made = [
        Side(vectors, _factors(norms, metric, 2.0**-exponent), keys, names, metric)
        for (vectors, names), (norms, keys) in zip(both, measured, strict=True)
    ]
    return made[0], made[-1]


def score_pairs(
    queries: Side, query_rows: np.ndarray, gallery: Side, gallery_rows: np.ndarray
) -> np.ndarray:
    """Exact scores [n] of n pairs. The same pair has the same bits in every call."""
    scores = np.empty(len(query_rows))
    order = np.argsort(query_rows, kind="stable")
    edges = np.flatnonzero(np.diff(query_rows[order], prepend=-1, append=-1)).tolist()
    step = max(1, PAIRS // max(1, queries.dim))
    for start, stop in itertools.pairwise(edges):
        query = queries.vectors[query_rows[order[start]]].astype(np.float64)
        for first in range(start, stop, step):
            pairs = order[first : min(first + step, stop)]
            rows = gallery.vectors[gallery_rows[pairs]].astype(np.float64)
            if gallery.metric == "euclidean":
                rows -= query
                scores[pairs] = -_sum("nd,nd->n", rows, rows)
            else:
                scores[pairs] = _sum("nd,d->n", rows, query)
    return scores * (queries.factors[query_rows] * gallery.factors[gallery_rows])


def score_table(
    queries: Side, query_rows: np.ndarray, gallery: Side, gallery_rows: np.ndarray
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


def originals(side: Side) -> np.ndarray | None:
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


def public(scores: np.ndarray, side: Side) -> np.ndarray:
    """Scores in the units of the vectors: cosine, dot product, or minus the distance."""
    if side.metric == "cosine" or not len(side):
        return scores
    factor = side.factors[0]  # the same for all rows
    if side.metric == "dot":
        return scores / factor**2
    return -np.sqrt(-np.minimum(scores, 0.0)) / factor


def release(vectors: np.ndarray) -> None:
    """Give the pages of a memory map back to the system, which keeps them cached as it can."""
    base: object = vectors
    while isinstance(base, np.ndarray):
        base = base.base
    if isinstance(base, mmap.mmap):
        base.madvise(mmap.MADV_DONTNEED)


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


def _measure(vectors: np.ndarray, names: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Norms and keys [N] of the rows. Raises InputError for values that are not finite."""
    norms, keys = np.empty(len(vectors)), np.empty(len(vectors))
    direction = np.random.default_rng(0).standard_normal((1, vectors.shape[1]))
    for start in range(0, len(vectors), ROWS):
        block = np.asarray(vectors[start : start + ROWS], np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            norms[start : start + ROWS] = np.sqrt(_sum("nd,nd->n", block, block))
            keys[start : start + ROWS] = _sum("nd,md->nm", block, direction)[:, 0]
    release(vectors)
    bad = np.flatnonzero(~np.isfinite(norms))
    if len(bad):
        name = names[bad[0]].decode(errors="replace")
        raise InputError(
            f"{len(bad)} vectors hold NaN or infinite values, the first is that of {name!r}; "
            "embed again with a model that is not damaged"
        )
    return norms, keys
