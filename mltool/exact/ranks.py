"""Ranks of the relevant rows, by counting for each of them the irrelevant rows that score higher.

The relevant rows are scored exactly beforehand. Of a block of approximate scores, those farther
from every relevant score than the error bound are counted as they are; the few others are scored
exactly, and ties are ordered by name. A relevant row that has `depth` rows above it is lost:
nothing more is counted for it, so most scores are done with after one comparison.
"""

import numpy as np

from mltool.exact.duplicates import Copies
from mltool.exact.error_bounds import Bound
from mltool.exact.placing import NOTHING, Part, covered, running
from mltool.exact.relevance import Relevance, relevant_scores
from mltool.exact.scan import Found
from mltool.exact.vector_set import VectorSet


class Counting:
    """Visits strips of scores and ends with the ranks of every query's relevant rows.

    `depth` [Q] is the number of irrelevant rows above which a relevant row's rank is of no
    interest. `equal` are the gallery's `originals`; with its `copies` one row of each is compared.
    """

    def __init__(
        self,
        queries: VectorSet,
        gallery: VectorSet,
        relevance: Relevance,
        depth: np.ndarray,
        *,
        equal: np.ndarray | None = None,
        copies: Copies | None = None,
    ) -> None:
        self.queries, self.copies, self.equal = queries, copies, equal
        self.gallery = gallery if copies is None else gallery.take(copies.firsts)
        self.relevance, self.depth = relevance, depth
        counts = relevance.counts()
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.scores, self.places = relevant_scores(queries, gallery, relevance, counts)
        self.steps = np.zeros(len(self.scores), np.int64)  # irrelevant rows just above each
        self.tied = np.zeros(len(self.scores), bool)  # with an irrelevant row
        self.by_name = np.zeros(len(self.scores), np.int64)  # of the steps, those that are ties
        self.worst = np.full(len(counts), NOTHING)
        self.worst[counts > 0] = self.scores[self.starts[1:][counts > 0] - 1]

    def limits(self, rows: slice, bound: Bound) -> np.ndarray:
        """Approximate scores [n] below which nothing of interest can lie."""
        worst = self.worst[rows]
        return worst - bound.around(worst)

    def take(self, found: Found, bound: Bound) -> None:
        """Count some scores."""
        first, last = int(found.queries[0]), int(found.queries[-1])
        part = Part(self, first, last + 1 - first, bound)
        part.count_some(found.queries - first, found.columns, found.scores)
        self.worst[first : last + 1] = part.worst_within(self.depth)

    def visit(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Count in a strip whose first query is `row`, first gallery row `column`."""
        part = Part(self, row, len(scores), bound)
        if part.start < part.stop:
            part.count_all(scores, column)
            self.worst[row : row + len(scores)] = part.worst_within(self.depth)

    def doubtful(self, rows: np.ndarray, scores: np.ndarray, bound: Bound) -> float:
        """Part of the sampled scores [n, m] of the queries `rows` that would need exact ones."""
        near, each = 0, len(self.gallery) / max(1, scores.shape[1])
        for row, found in zip(rows, np.sort(scores, axis=1), strict=True):
            relevant = self.scores[self.starts[row] : self.starts[row + 1]]
            above = each * (len(found) - np.searchsorted(found, relevant))
            relevant = relevant[above < self.depth[row] + each]  # the others will be lost
            reach = bound.around(relevant)
            low, high = (np.searchsorted(found, relevant + by) for by in (-reach, reach))
            near += len(covered(low, high, len(found)))
        return near / max(1, scores.size)

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """0-based ranks [P] of the relevant rows, ascending within each query of `starts`.

        And which of them [P] tie with an irrelevant row and have less than `depth` rows above
        the tie. Of lost rows all that counts is that their rank is at least `depth`.
        """
        counts = np.diff(self.starts)
        owner = np.repeat(np.arange(len(counts)), counts)
        above = running(self.steps, self.starts)
        depth = self.depth[owner]
        nth = np.arange(len(owner)) - self.starts[owner]
        return np.minimum(above, depth) + nth, self.tied & (above - self.by_name < depth)
