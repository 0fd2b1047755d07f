"""Keep the k nearest rows of each query, with exact scores, from blocks of approximate ones.

The two nearest of four gallery rows, which come in two blocks:

>>> from mltool.exact.vector_set import make_vector_sets
>>> queries, gallery = make_vector_sets(
...     (np.array([[1.0]]), np.array([b"query"])),
...     (np.array([[0.3], [0.8], [0.9], [0.5]]), np.array(list("abcd"), "S")),
...     metric="dot",
... )
>>> top = TopK(
...     queries, gallery, k=2, self_rows=np.array([-1]), tie_order=gallery.tie_order(),
...     redundant=np.zeros(4, bool),
... )
>>> bound = Bound(0.01, 0.0)
>>> top.accept_dense(np.array([[0.3, 0.8]]), 0, 0, bound)
>>> top.thresholds(slice(0, 1), bound).round(2).tolist()  # 0.3 less the error
[0.29]
>>> top.accept_dense(np.array([[0.9, 0.5]]), 0, 2, bound)
>>> top.rows.tolist(), top.scores.tolist()
([[2, 1]], [[0.9, 0.8]])

Each query keeps its k best rows so far with their exact scores. Of a block, the rows whose
approximate score could reach the k-th of them are scored exactly and merged, ties by name.

Threads: as `scan` says; what is written belongs to the queries that are handed over.
"""

import numpy as np

from mltool.exact.error_bounds import Bound
from mltool.exact.scan import Candidates
from mltool.exact.vector_set import VectorSet, find_first_equal_rows, score_pairs

LOWEST = -1e3  # below every score, and finite


class TopK:
    """A visitor that ends with every query's nearest rows.

    `self_rows` [Q] is the gallery row that is the query itself and does not count (-1 = none),
    `tie_order` [N] decides between equal scores, and `redundant` [N] marks rows that are nobody's
    neighbour. The results are `rows` and `scores` [Q, k].
    """

    def __init__(
        self,
        queries: VectorSet,
        gallery: VectorSet,
        *,
        k: int,
        self_rows: np.ndarray,
        tie_order: np.ndarray,
        redundant: np.ndarray,
    ) -> None:
        self.queries, self.gallery, self.k = queries, gallery, k
        self.self_rows, self.tie_order, self.redundant = self_rows, tie_order, redundant
        self.rows = np.full((len(queries), k), -1, np.int64)
        self.scores = np.full((len(queries), k), -np.inf)  # exact, best first

    def thresholds(self, rows: slice, bound: Bound) -> np.ndarray:
        """Return the approximate score [n] that the next neighbour must reach.

        It is -inf for a query that has less than k neighbours so far.
        """
        kth = self.scores[rows, -1]
        is_full = ~np.isneginf(kth)
        thresholds = np.full(len(kth), -np.inf)
        thresholds[is_full] = kth[is_full] - bound.max_error(kth[is_full])
        return thresholds

    def accept(self, candidates: Candidates, bound: Bound) -> None:
        """Score candidates exactly and merge them into the neighbours so far."""
        kept = ~self.redundant[candidates.columns]
        kept &= candidates.columns != self.self_rows[candidates.queries]
        if kept.any():
            self._merge(candidates.queries[kept], candidates.columns[kept])

    def accept_dense(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Merge what matters of all scores [n, m], after thresholds from the scores themselves."""
        width = scores.shape[1]
        redundant = self.redundant[column : column + width]
        thresholds = self.thresholds(slice(row, row + len(scores)), bound)
        unlimited = np.flatnonzero(np.isneginf(thresholds))
        # one more than k, because one of them may be the query itself
        if width > self.k + 1 and len(unlimited):
            thresholds[unlimited] = _bound_kth(scores[unlimited], self.k + 1, redundant, bound)
        mask = scores >= np.nextafter(thresholds.astype(scores.dtype), -np.inf)[:, None]
        rows, columns = np.divmod(np.flatnonzero(mask), width)
        self.accept(Candidates(rows + row, columns + column, scores[:0]), bound)

    def estimate_rescored_fraction(
        self, rows: np.ndarray, scores: np.ndarray, bound: Bound
    ) -> float:
        """Estimate the share of all pairs that will be scored exactly.

        From sampled approximate scores [n, m] of the queries `rows` [n].
        """
        if not scores.size:
            return 0.0
        nearest = min(scores.shape[1], 2 + self.k * scores.shape[1] // len(self.gallery))
        kth = np.partition(scores, -nearest, axis=1)[:, -nearest]
        return float(np.mean(scores >= (kth - 2.0 * bound.max_error(kth))[:, None]))

    def _merge(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Score pairs [n] of queries and gallery rows, and keep the k best of each query."""
        scores = score_pairs(self.queries, rows, self.gallery, columns)
        changed = np.unique(rows)
        held = self.rows[changed] >= 0
        # the pairs and the neighbours so far together, by query, best first, ties by name
        rows = np.concatenate([rows, np.repeat(changed, held.sum(axis=1))])
        columns = np.concatenate([columns, self.rows[changed][held]])
        scores = np.concatenate([scores, self.scores[changed][held]])
        order = np.lexsort((self.tie_order[columns], -scores, rows))
        rows = rows[order]
        rank = np.arange(len(rows)) - np.searchsorted(rows, rows)
        best = rank < self.k
        order, rows, rank = order[best], rows[best], rank[best]
        self.rows[rows, rank], self.scores[rows, rank] = columns[order], scores[order]


def _bound_kth(scores: np.ndarray, k: int, redundant: np.ndarray, bound: Bound) -> np.ndarray:
    """Return an approximate score [n] that no row among the exact k best of scores [n, m] misses.

    The approximate k-th best, less its error, is what k exact scores surely reach; a row as good as
    that may look worse by its own error once more.
    """
    if redundant.any():
        scores = np.where(redundant, -np.inf, scores)
    kth = np.partition(scores, -k, axis=1)[:, -k].astype(np.float64)
    kth = np.maximum(kth, LOWEST)  # with less than k rows it is -inf, whose error would be NaN
    # the bound is around exact scores, and this one is approximate: a little more covers that
    reached = kth - 1.01 * bound.max_error(kth)
    return reached - bound.max_error(reached)


def mark_redundant(gallery: VectorSet, tie_order: np.ndarray, most: int) -> np.ndarray:
    """Mark all but the first `most` of equal rows: [N] bool.

    The first ones win every tie, so the others are no query's neighbours if `most` is above k.
    """
    redundant = np.zeros(len(gallery), bool)
    first = find_first_equal_rows(gallery)
    if first is not None:
        order = np.lexsort((tie_order, first))
        groups = first[order]
        nth = np.arange(len(order)) - np.searchsorted(groups, groups)
        redundant[order[nth >= most]] = True
    return redundant
