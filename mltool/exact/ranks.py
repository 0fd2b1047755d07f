"""Rank the relevant rows, by counting for each of them the irrelevant rows that score higher.

One query, whose gallery rows a and d of the scores 0.9 and 0.5 are relevant:

>>> from mltool.exact.vector_set import make_vector_sets
>>> queries, gallery = make_vector_sets(
...     (np.array([[1.0]]), np.array([b"query"])),
...     (np.array([[0.9], [0.7], [0.6], [0.5], [0.3]]), np.array(list("abcde"), "S")),
...     metric="dot",
... )
>>> relevance = Relevance(
...     query_label_ids=np.array([0]), gallery_label_ids=np.array([0, 1, 1, 0, 1]),
...     self_rows=np.array([-1]), tie_order=gallery.tie_order(),
... )
>>> counter = RankCounter(queries, gallery, relevance, depth=np.array([6]))
>>> counter.accept_dense(np.array([[0.9, 0.7, 0.6, 0.5, 0.3]]), 0, 0, Bound(0.01, 0.0))
>>> counter.tally.steps.tolist()  # b and c stand between a and d
[0, 2]
>>> counter.ranks()[0].tolist()  # 0-based
[0, 3]

The relevant rows are scored exactly beforehand. Of a block of approximate scores, those farther
from every relevant score than the error bound are counted as they are; the few others are scored
exactly, and ties are ordered by name (`query_block` has the details). A relevant row that has
`depth` irrelevant rows above it is lost: nothing more is counted for it, so most scores are done
with after one comparison.

Threads: as `scan` says; what is written belongs to the queries that are handed over.
"""

import numpy as np

from mltool.exact.duplicates import Duplicates
from mltool.exact.error_bounds import Bound
from mltool.exact.query_block import NO_LIMIT, QueryBlock, Tally
from mltool.exact.relevance import Relevance, score_relevant
from mltool.exact.scan import Candidates
from mltool.exact.segments import merge_ranges, sum_within
from mltool.exact.vector_set import VectorSet


class RankCounter:
    """A visitor that ends with the ranks of every query's relevant rows.

    `depth` [Q] is the number of irrelevant rows above a relevant one from which on its rank is of
    no interest. `first_equal_rows` [N] are those of the gallery, None where all its rows differ;
    with its `duplicates` one row of each group is compared.
    """

    def __init__(
        self,
        queries: VectorSet,
        gallery: VectorSet,
        relevance: Relevance,
        depth: np.ndarray,
        *,
        first_equal_rows: np.ndarray | None = None,
        duplicates: Duplicates | None = None,
    ) -> None:
        counts = relevance.count_relevant()
        scores, tie_order = score_relevant(queries, gallery, relevance, counts)
        self.queries = queries
        self.gallery = gallery if duplicates is None else gallery.take(duplicates.representatives)
        self.tally = Tally(
            queries=self.queries,
            gallery=self.gallery,
            relevance=relevance,
            depth=depth,
            starts=np.concatenate([[0], np.cumsum(counts)]),
            scores=scores,
            tie_order=tie_order,
            steps=np.zeros(len(scores), np.int64),
            tied_steps=np.zeros(len(scores), np.int64),
            tied=np.zeros(len(scores), bool),
            first_equal_rows=first_equal_rows,
            duplicates=duplicates,
        )
        # each query's lowest relevant score that is not lost
        self._lowest = np.full(len(counts), NO_LIMIT)
        self._lowest[counts > 0] = scores[self.tally.starts[1:][counts > 0] - 1]

    def thresholds(self, rows: slice, bound: Bound) -> np.ndarray:
        """Return for some queries the lowest approximate score [n] that may stand above a row."""
        lowest = self._lowest[rows]
        return lowest - bound.max_error(lowest)

    def accept(self, candidates: Candidates, bound: Bound) -> None:
        """Count scores that reached a threshold."""
        first, last = int(candidates.queries[0]), int(candidates.queries[-1])
        block = QueryBlock(self.tally, first, last + 1 - first, bound)
        block.count_sparse(candidates.queries - first, candidates.columns, candidates.scores)
        self._lowest[first : last + 1] = block.find_lowest_scores()

    def accept_dense(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Count all scores [n, m] of queries from `row` on with gallery rows from `column` on."""
        block = QueryBlock(self.tally, row, len(scores), bound)
        if block.start < block.stop:
            block.count_dense(scores, column)
            self._lowest[row : row + len(scores)] = block.find_lowest_scores()

    def estimate_rescored_fraction(
        self, rows: np.ndarray, scores: np.ndarray, bound: Bound
    ) -> float:
        """Estimate the share of all pairs that will be scored exactly.

        From sampled approximate scores [n, m] of the queries `rows` [n].
        """
        near, each = 0, len(self.gallery) / max(1, scores.shape[1])
        starts = self.tally.starts
        for row, sample in zip(rows, np.sort(scores, axis=1), strict=True):
            relevant = self.tally.scores[starts[row] : starts[row + 1]]
            above = each * (len(sample) - np.searchsorted(sample, relevant))
            relevant = relevant[above < self.tally.depth[row] + each]  # the others will be lost
            error = bound.max_error(relevant)
            low, high = (np.searchsorted(sample, relevant + by) for by in (-error, error))
            near += len(merge_ranges(low, high, len(sample)))
        return near / max(1, scores.size)

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """Return (ranks [P] int64, tied [P] bool) of the relevant rows.

        Ranks are 0-based, ascending within each query, and exact below `depth`; others are only
        said to be at least `depth`. `tied` is true where an irrelevant row has the same score and
        less than `depth` rows stand above the two.
        """
        tally = self.tally
        counts = np.diff(tally.starts)
        owner = np.repeat(np.arange(len(counts)), counts)
        above = sum_within(tally.steps, tally.starts)
        depth = tally.depth[owner]
        nth = np.arange(len(owner)) - tally.starts[owner]
        return np.minimum(above, depth) + nth, tally.tied & (above - tally.tied_steps < depth)
