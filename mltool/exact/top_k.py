"""The k nearest rows of each query, with exact scores, from blocks of approximate ones.

Each query keeps its k best rows so far with their exact scores. Of a block, the rows whose
approximate score could reach the k-th of them are scored exactly and merged, ties by name.
"""

import numpy as np

from mltool.exact.error_bounds import Bound
from mltool.exact.scan import Found
from mltool.exact.vector_set import VectorSet, originals, score_pairs


class Selecting:
    """Visits strips of scores and ends with every query's nearest rows.

    `own` [Q] is the gallery row that a query does not count (-1 = none), `places` [N] the order
    of ties, `surplus` [N] the rows that are nobody's neighbour.
    """

    def __init__(
        self,
        queries: VectorSet,
        gallery: VectorSet,
        *,
        k: int,
        own: np.ndarray,
        places: np.ndarray,
        surplus: np.ndarray,
    ) -> None:
        self.queries, self.gallery, self.k = queries, gallery, k
        self.own, self.places, self.surplus = own, places, surplus
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.scores = np.full((len(queries), k), -np.inf)  # exact, best first

    def limits(self, rows: slice, bound: Bound) -> np.ndarray:
        """Approximate scores [n] that the next neighbour must reach; -inf without k of them."""
        kth = self.scores[rows, -1]
        held = ~np.isneginf(kth)
        limits = np.full(len(kth), -np.inf)
        limits[held] = kth[held] - bound.around(kth[held])
        return limits

    def take(self, found: Found, bound: Bound) -> None:
        """Merge some scores."""
        kept = ~self.surplus[found.columns] & (found.columns != self.own[found.queries])
        if kept.any():
            self._merge(found.queries[kept], found.columns[kept])

    def visit(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Merge a strip whose first query is `row`, first gallery row `column`."""
        width = scores.shape[1]
        surplus = self.surplus[column : column + width]
        limits = self.limits(slice(row, row + len(scores)), bound)
        open_rows = np.flatnonzero(np.isneginf(limits))
        if width > self.k + 1 and len(open_rows):
            limits[open_rows] = _kth_best(scores[open_rows], self.k + 1, surplus, bound)
        mask = scores >= np.nextafter(limits.astype(scores.dtype), -np.inf)[:, None]
        rows, columns = np.divmod(np.flatnonzero(mask), width)
        self.take(Found(rows + row, columns + column, scores[:0]), bound)

    def doubtful(self, rows: np.ndarray, scores: np.ndarray, bound: Bound) -> float:
        """Part of the sampled scores [n, m] of the queries `rows` that would need exact ones."""
        if not scores.size:
            return 0.0
        nearest = min(scores.shape[1], 2 + self.k * scores.shape[1] // len(self.gallery))
        kth = np.partition(scores, -nearest, axis=1)[:, -nearest]
        return float(np.mean(scores >= (kth - 2.0 * bound.around(kth))[:, None]))

    def _merge(self, rows: np.ndarray, columns: np.ndarray) -> None:
        scores = score_pairs(self.queries, rows, self.gallery, columns)
        concerned = np.unique(rows)
        held = self.rows[concerned] >= 0
        rows = np.concatenate([rows, np.repeat(concerned, held.sum(axis=1))])
        columns = np.concatenate([columns, self.rows[concerned][held]])
        scores = np.concatenate([scores, self.scores[concerned][held]])
        order = np.lexsort((self.places[columns], -scores, rows))
        rows = rows[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self.k
        order, rows, rank = order[best], rows[best], rank[best]
        self.rows[rows, rank], self.scores[rows, rank] = columns[order], scores[order]


def _kth_best(scores: np.ndarray, k: int, surplus: np.ndarray, bound: Bound) -> np.ndarray:
    """A score [b] that the exact k-th best of each row surely reaches, less the error."""
    if surplus.any():
        scores = np.where(surplus, -np.inf, scores)
    kth = np.partition(scores, -k, axis=1)[:, -k].astype(np.float64)
    kth = np.maximum(kth, -1e3)
    reached = kth - 1.01 * bound.around(kth)
    return reached - bound.around(reached)


def surplus_of(gallery: VectorSet, places: np.ndarray, most: int) -> np.ndarray:
    """Mask [N] of the rows that can be nobody's neighbour: `most` equal ones come before them."""
    surplus = np.zeros(len(gallery), bool)
    original = originals(gallery)
    if original is not None:
        order = np.lexsort((places, original))
        copies = original[order]
        nth = np.arange(len(order)) - np.searchsorted(copies, copies)
        surplus[order[nth >= most]] = True
    return surplus
