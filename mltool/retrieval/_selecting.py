"""The k nearest rows of each query, with exact scores, from blocks of approximate ones.

Each query keeps its k best rows so far with their exact scores. Of a block, the rows whose
approximate score could reach the k-th of them are scored exactly and merged, ties by name.
"""

import numpy as np

from mltool.retrieval._products import Bound
from mltool.retrieval._vectors import Side, originals, score_pairs


class Selecting:
    """Visits strips of scores and ends with every query's nearest rows.

    `own` [Q] is the gallery row that a query does not count (-1 = none), `places` [N] the order
    of ties.
    """

    def __init__(
        self, queries: Side, gallery: Side, *, k: int, own: np.ndarray, places: np.ndarray
    ) -> None:
        self.queries, self.gallery, self.k = queries, gallery, k
        self.own, self.places = own, places
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.scores = np.full((len(queries), k), -np.inf)  # exact, best first
        self.surplus = _surplus(gallery, places, k + 1)

    def visit(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Merge a strip whose first query is `row`, first gallery row `column`."""
        part = slice(row, row + len(scores))
        width = scores.shape[1]
        surplus = self.surplus[column : column + width]
        kth = self.scores[part, -1]
        open_rows = np.flatnonzero(np.isneginf(kth))
        limit = np.where(np.isneginf(kth), -1e3, kth)
        limit -= bound.around(limit)
        if width > self.k + 1 and len(open_rows):
            limit[open_rows] = _kth_best(scores[open_rows], self.k + 1, surplus, bound)
        mask = scores >= np.nextafter(limit.astype(scores.dtype), -np.inf)[:, None]
        mask[:, surplus] = False
        rows, columns = np.divmod(np.flatnonzero(mask), width)
        other = columns + column != self.own[part][rows]
        if other.any():
            self._merge(rows[other] + row, columns[other] + column)

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


def _surplus(gallery: Side, places: np.ndarray, most: int) -> np.ndarray:
    """Mask [N] of the rows that can be nobody's neighbour: `most` equal ones come before them."""
    surplus = np.zeros(len(gallery), bool)
    original = originals(gallery)
    if original is not None:
        order = np.lexsort((places, original))
        copies = original[order]
        nth = np.arange(len(order)) - np.searchsorted(copies, copies)
        surplus[order[nth >= most]] = True
    return surplus
