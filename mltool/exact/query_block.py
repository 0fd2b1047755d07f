"""Count the irrelevant rows above each relevant row of a few queries, from approximate scores.

A query has relevant rows of the exact scores 0.9 and 0.5, and the error bound is 0.05. An
irrelevant row at about 0.7 is surely below 0.9 and surely above 0.5: it counts as one step just
above the second relevant row. One at about 0.3 is below all and counts nowhere. One at about 0.52
may lie on either side of 0.5: it is scored exactly before it counts.

`steps` holds, for every relevant row, the irrelevant rows between it and the relevant row before
it. Running sums of the steps are the irrelevant rows above, so a block of scores adds its counts
in one place each and never touches the relevant rows farther down:

    relevant rows    0.9  0.5        irrelevant rows   0.95  0.7  0.6  0.3
    steps              1    2        (0.95 | 0.7, 0.6)
    above              1    3        running sums
    ranks              1    4        plus the relevant rows before: 0 and 1

Threads: a QueryBlock writes to the entries of its own queries in the tally and nowhere else, so
blocks of different queries may be counted at a time.
"""

from dataclasses import dataclass

import numpy as np

from mltool.exact.duplicates import Duplicates
from mltool.exact.error_bounds import Bound
from mltool.exact.relevance import Relevance
from mltool.exact.segments import merge_ranges, search_rows, sum_within, unsort
from mltool.exact.vector_set import VectorSet, score_pairs

NO_LIMIT = 100.0  # above every score: a query with this as its lowest score needs no more rows
ROW_STRIDE = 8.0  # scores lie in [-4, 1], so keys ROW_STRIDE * row - score of two rows never mix


@dataclass(frozen=True, eq=False)
class Tally:
    """The relevant rows of all queries, one query after the other, best first; and their counts."""

    queries: VectorSet
    gallery: VectorSet  # with duplicates: one representative of each group
    relevance: Relevance
    depth: np.ndarray  # [Q] a relevant row with so many irrelevant ones above it is lost
    starts: np.ndarray  # [Q + 1] where each query's relevant rows begin
    scores: np.ndarray  # [P] float64, exact
    tie_order: np.ndarray  # [P] int64
    steps: np.ndarray  # [P] int64, irrelevant rows below the relevant row before and above this one
    tied_steps: np.ndarray  # [P] int64, those of the steps that have this row's score
    tied: np.ndarray  # [P] bool, an irrelevant row has this row's score
    first_equal_rows: np.ndarray | None  # [N] see `find_first_equal_rows`
    duplicates: Duplicates | None


class QueryBlock:
    """Consecutive queries of a tally, with their relevant rows laid flat in arrays [p].

    Row r of the block is query `first + r`, and its relevant rows are bounds[r]:bounds[r + 1].
    """

    def __init__(self, tally: Tally, first: int, count: int, bound: Bound) -> None:
        self.tally, self.first, self.count, self.bound = tally, first, count, bound
        bounds = tally.starts[first : first + count + 1]
        self.start, self.stop = int(bounds[0]), int(bounds[-1])
        self.bounds = bounds - self.start
        self.scores = tally.scores[self.start : self.stop]
        self.row = np.repeat(np.arange(count), np.diff(self.bounds))  # of each relevant row
        self.max_error = bound.max_error(self.scores)
        self.label_ids = tally.relevance.query_label_ids[first : first + count]
        self.self_rows = tally.relevance.self_rows[first : first + count]

    def find_lowest_scores(self) -> np.ndarray:
        """Find each query's lowest relevant score that can still rank within its depth.

        Returns [count]; NO_LIMIT where every relevant row is lost.
        """
        alive = self._count_surely_above() < self.tally.depth[self.first + self.row]
        # best first, so the rows that are not lost come before the lost ones
        last = self.bounds[:-1] + np.bincount(self.row[alive], minlength=self.count) - 1
        any_alive = last >= self.bounds[:-1]
        return np.where(any_alive, self.scores[np.maximum(last, 0)], NO_LIMIT)

    def count_sparse(self, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray) -> None:
        """Count approximate scores [n] of rows of this block with gallery rows."""
        number = self._count_irrelevant(rows, columns)
        kept = number > 0
        rows, columns, scores, number = rows[kept], columns[kept], scores[kept], number[kept]
        # all queries in one ascending array: a query's keys lie ROW_STRIDE above those before it
        keys = ROW_STRIDE * rows - scores
        relevant_keys = ROW_STRIDE * self.row - self.scores
        # every relevant row from position `below` on is surely below the candidate
        below = np.searchsorted(relevant_keys - self.max_error, keys, side="right")
        # and the one just before is surely above, unless the candidate is within its error
        unsure = (relevant_keys + self.max_error)[np.maximum(below - 1, 0)] >= keys
        unsure &= below > 0
        self._add_steps(rows[~unsure], below[~unsure], number[~unsure])
        # what is sure may have lost some relevant rows, and candidates below all others with them
        lowest = self.find_lowest_scores()
        unsure &= scores >= (lowest - self.bound.max_error(lowest))[rows]
        self._count_exactly(rows[unsure], columns[unsure])

    def count_dense(self, scores: np.ndarray, column: int) -> None:
        """Count all scores [count, m] with the gallery rows from `column` on; overwrites them."""
        if self.tally.duplicates is None:
            self._count_sorted(scores, column)
        else:
            rows, columns = np.divmod(np.arange(scores.size), scores.shape[1])
            self.count_sparse(rows, columns + column, scores.ravel())

    def _count_irrelevant(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Count the irrelevant rows [n] that each compared gallery row stands for."""
        label_ids, self_rows = self.label_ids[rows], self.self_rows[rows]
        if self.tally.duplicates is not None:
            return self.tally.duplicates.count_irrelevant(label_ids, self_rows, columns)
        is_irrelevant = self.tally.relevance.gallery_label_ids[columns] != label_ids
        return (is_irrelevant & (columns != self_rows)).astype(np.int64)

    def _count_sorted(self, scores: np.ndarray, column: int) -> None:
        """Count all scores by sorting each row: cheaper than a binary search for every score."""
        width = scores.shape[1]
        label_ids = self.tally.relevance.gallery_label_ids[column : column + width]
        # -inf is below all. A tile that serves its columns too will show them these entries again:
        # they are relevant, or the query itself, from that side as well.
        np.copyto(scores, -np.inf, where=label_ids == self.label_ids[:, None])
        self_columns = self.self_rows - column
        inside = np.flatnonzero((self_columns >= 0) & (self_columns < width))
        scores[inside, self_columns[inside]] = -np.inf
        ordered = np.sort(scores, axis=1)
        # positions in the sorted strip, laid flat: from `high` on surely above, from `low` perhaps
        high = search_rows(ordered, self.row, self.scores + self.max_error)
        low = np.minimum(search_rows(ordered, self.row, self.scores - self.max_error), high)
        end = (self.row + 1) * width
        alive = self._count_surely_above() + (end - high) < self.tally.depth[self.first + self.row]
        unsure = merge_ranges(low[alive], high[alive], ordered.size)
        # unsure entries are left out here, even where another relevant row is surely below them:
        # _count_exactly counts them
        above = end - high - (np.searchsorted(unsure, end) - np.searchsorted(unsure, high))
        before = np.concatenate([[0], above[:-1]])
        before[self.bounds[:-1][np.diff(self.bounds) > 0]] = 0
        self.tally.steps[self.start : self.stop] += above - before
        rows, columns = unsort(scores, unsure)
        self._count_exactly(rows, columns + column)

    def _count_exactly(self, rows: np.ndarray, columns: np.ndarray) -> None:
        """Count irrelevant rows by their exact scores, ties by name."""
        if not len(rows):
            return
        tally = self.tally
        if tally.duplicates is not None:
            self._count_duplicates(tally.duplicates, rows, columns)
            return
        scores = self._score_exactly(rows, columns)
        # relevant and irrelevant rows together, by query, best first, ties by name
        order = np.lexsort(
            (
                np.concatenate(
                    [tally.tie_order[self.start : self.stop], tally.relevance.tie_order[columns]]
                ),
                -np.concatenate([self.scores, scores]),
                np.concatenate([self.row, rows]),
            )
        )
        is_relevant = order < len(self.scores)
        position = np.cumsum(is_relevant)[~is_relevant]  # of the next relevant row
        candidate = order[~is_relevant] - len(self.scores)
        rows, scores = rows[candidate], scores[candidate]
        self._add_steps(rows, position, np.ones(len(rows), np.int64))
        # equal scores are neighbours in this order, so a tie is with the relevant row before or
        # after; the last pass leaves in `equal` the row after, which the step was counted at
        for adjacent in (position - 1, position):
            inside = (adjacent >= self.bounds[rows]) & (adjacent < self.bounds[rows + 1])
            equal = adjacent[inside][self.scores[adjacent[inside]] == scores[inside]]
            tally.tied[self.start + equal] = True
        np.add.at(tally.tied_steps, self.start + equal, 1)

    def _score_exactly(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Return exact scores [n]; equal gallery rows are scored once."""
        tally = self.tally
        if tally.first_equal_rows is None:
            return score_pairs(tally.queries, self.first + rows, tally.gallery, columns)
        size = len(tally.gallery)
        pairs = rows * size + tally.first_equal_rows[columns]
        pairs, which = np.unique(pairs, return_inverse=True)
        rows, columns = np.divmod(pairs, size)
        return score_pairs(tally.queries, self.first + rows, tally.gallery, columns)[which]

    def _count_surely_above(self) -> np.ndarray:
        """Count the irrelevant rows so far above each relevant row [p], without its ties."""
        block = slice(self.start, self.stop)
        return sum_within(self.tally.steps[block], self.bounds) - self.tally.tied_steps[block]

    def _count_duplicates(
        self, duplicates: Duplicates, rows: np.ndarray, groups: np.ndarray
    ) -> None:
        """Count all irrelevant rows of groups of equal ones by the group's exact score."""
        tally = self.tally
        scores = score_pairs(tally.queries, self.first + rows, tally.gallery, groups)
        number = self._count_irrelevant(rows, groups)
        # relevant rows from `low` to `high` have the group's score, and are in the order of names
        low = self._find_first_below(rows, scores, or_equal=True)
        high = self._find_first_below(rows, scores, or_equal=False)
        ties = high - low
        which = np.repeat(np.arange(len(rows)), ties)
        tied = np.arange(len(which)) + np.repeat(low - np.cumsum(ties) + ties, ties)
        asked, tie_order = rows[which], tally.tie_order[self.start + tied]
        before = duplicates.count_irrelevant_before(
            self.label_ids[asked], self.self_rows[asked], groups[which], tie_order
        )
        # the group's rows before each tied relevant row, less those before the tied one before it
        steps = np.diff(before, prepend=0)
        is_first = tied == low[which]
        steps[is_first] = before[is_first]
        self._add_steps(asked, tied, steps)
        np.add.at(tally.tied_steps, self.start + tied, steps)
        # the rest of the group comes behind the last tied row
        last = np.zeros(len(rows), np.int64)
        last[ties > 0] = before[np.cumsum(ties)[ties > 0] - 1]
        self._add_steps(rows, high, number - last)
        # tied are the relevant rows next to an irrelevant one: after it, before it, and at the end
        adjacent = [tied[steps > 0], tied[(steps > 0) & ~is_first] - 1]
        adjacent.append(high[(ties > 0) & (number > last)] - 1)
        tally.tied[self.start + np.concatenate(adjacent)] = True

    def _find_first_below(
        self, rows: np.ndarray, scores: np.ndarray, *, or_equal: bool
    ) -> np.ndarray:
        """Find in each row the first relevant score [n] below `scores` [n], or equal to it."""
        low, high = self.bounds[rows], self.bounds[rows + 1]
        while (low < high).any():
            middle = (low + high) // 2
            value = self.scores[np.minimum(middle, len(self.scores) - 1)]
            above = (low < high) & ((value > scores) if or_equal else (value >= scores))
            high = np.where(above | (low >= high), high, middle)
            low = np.where(above, middle + 1, low)
        return low

    def _add_steps(self, rows: np.ndarray, position: np.ndarray, number: np.ndarray) -> None:
        """Count `number` irrelevant rows just above the relevant row at `position`.

        A position behind the last relevant row of its query counts nowhere.
        """
        inside = position < self.bounds[rows + 1]
        np.add.at(self.tally.steps[self.start : self.stop], position[inside], number[inside])
