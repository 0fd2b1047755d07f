"""Ranks of the relevant rows, by counting for each of them the irrelevant rows that score higher.

The relevant rows are scored exactly beforehand. Of a block of approximate scores, those farther
from every relevant score than the error bound are counted as they are; the few others are scored
exactly, and ties are ordered by name. A relevant row that has `depth` rows above it is lost:
nothing more is counted for it, so most scores are done with after one comparison.
"""

import numpy as np

from mltool.retrieval._products import Bound
from mltool.retrieval._relevance import Relevance, relevant_scores
from mltool.retrieval._vectors import Side, originals, score_pairs

DENSE = 0.05  # part of a strip above the worst relevant score from which sorting it is faster
NOTHING = 100.0  # above every score
SPREAD = 8.0  # scores lie in [-4, 1], so keys SPREAD * row - score of two rows never mix


class Counting:
    """Visits strips of scores and ends with the ranks of every query's relevant rows.

    `depth` [Q] is the number of irrelevant rows above which a relevant row's rank is of no
    interest.
    """

    def __init__(
        self, queries: Side, gallery: Side, relevance: Relevance, depth: np.ndarray
    ) -> None:
        self.queries, self.gallery = queries, gallery
        self.relevance, self.depth = relevance, depth
        counts = relevance.counts()
        self.starts = np.concatenate([[0], np.cumsum(counts)])
        self.scores, self.places = relevant_scores(queries, gallery, relevance, counts)
        self.steps = np.zeros(len(self.scores), np.int64)  # irrelevant rows just above each
        self.tied = np.zeros(len(self.scores), bool)  # with an irrelevant row
        self.by_name = np.zeros(len(self.scores), np.int64)  # of the steps, those that are ties
        self.originals = originals(gallery)
        self.worst = np.full(len(counts), NOTHING)
        self.worst[counts > 0] = self.scores[self.starts[1:][counts > 0] - 1]

    def visit(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Count in a strip whose first query is `row`, first gallery row `column`."""
        strip = _Strip(self, row, len(scores), column, scores.shape[1], bound)
        if strip.start == strip.stop:
            return
        worst = self.worst[row : row + len(scores)]
        limit = worst - bound.around(worst)
        mask = scores >= np.nextafter(limit.astype(scores.dtype), -np.inf)[:, None]
        if np.count_nonzero(mask) > DENSE * mask.size:
            strip.count_sorted(scores)
        else:
            strip.count_some(np.flatnonzero(mask), scores)
        self.worst[row : row + len(scores)] = strip.worst_within(self.depth)

    def doubtful(self, rows: np.ndarray, scores: np.ndarray, bound: Bound) -> float:
        """Part of the sampled scores [n, m] of the queries `rows` that would need exact ones."""
        near = 0
        for row, found in zip(rows, scores, strict=True):
            relevant = self.scores[self.starts[row] : self.starts[row + 1]][::-1]
            if len(relevant):
                place = np.searchsorted(relevant, found)
                below = relevant[np.maximum(place - 1, 0)]
                above = relevant[np.minimum(place, len(relevant) - 1)]
                distance = np.minimum(np.abs(found - below), np.abs(found - above))
                near += int(np.count_nonzero(distance <= bound.around(found)))
        return near / max(1, scores.size)

    def ranks(self) -> tuple[np.ndarray, np.ndarray]:
        """0-based ranks [P] of the relevant rows, ascending within each query of `starts`.

        And which of them [P] tie with an irrelevant row and have less than `depth` rows above
        the tie. Of lost rows all that counts is that their rank is at least `depth`.
        """
        counts = np.diff(self.starts)
        owner = np.repeat(np.arange(len(counts)), counts)
        above = _running(self.steps, self.starts)
        depth = self.depth[owner]
        nth = np.arange(len(owner)) - self.starts[owner]
        return np.minimum(above, depth) + nth, self.tied & (above - self.by_name < depth)


class _Strip:
    """One strip: the relevant scores of its queries, as ascending keys for binary search."""

    def __init__(
        self, whole: Counting, first: int, rows: int, column: int, width: int, bound: Bound
    ) -> None:
        self.whole, self.first, self.column = whole, first, column
        self.rows, self.width = rows, width
        self.bounds = whole.starts[first : first + rows + 1]
        self.start, self.stop = int(self.bounds[0]), int(self.bounds[-1])
        self.bounds = self.bounds - self.start
        self.exact = whole.scores[self.start : self.stop]
        self.row = np.repeat(np.arange(rows), np.diff(self.bounds))  # of each relevant score
        self.reach = bound.around(self.exact)
        self.codes = whole.relevance.query_codes[first : first + rows]
        self.own = whole.relevance.own[first : first + rows] - column

    def worst_within(self, depth: np.ndarray) -> np.ndarray:
        """Of each row the lowest relevant score that is not lost, NOTHING if all are."""
        alive = self._surely_above() < depth[self.first + self.row]
        last = self.bounds[:-1] + np.bincount(self.row[alive], minlength=self.rows) - 1
        inside = last >= self.bounds[:-1]
        return np.where(inside, self.exact[np.maximum(last, 0)], NOTHING)

    def count_some(self, flat: np.ndarray, scores: np.ndarray) -> None:
        """Count the entries `flat` of the strip's scores, laid flat."""
        rows, columns = np.divmod(flat, self.width)
        codes = self.whole.relevance.gallery_codes[self.column + columns]
        irrelevant = (codes != self.codes[rows]) & (columns != self.own[rows])
        rows, columns = rows[irrelevant], columns[irrelevant]
        keys = SPREAD * rows - scores.ravel()[flat[irrelevant]]
        base = SPREAD * self.row - self.exact
        below = np.searchsorted(base - self.reach, keys, side="right")  # from here surely below
        unsure = (base + self.reach)[np.maximum(below - 1, 0)] >= keys
        unsure &= below > 0
        self._step(rows[~unsure], below[~unsure])
        self._count_exactly(rows[unsure], columns[unsure])

    def count_sorted(self, scores: np.ndarray) -> None:
        """Count all scores of the strip, sorted row by row."""
        codes = self.whole.relevance.gallery_codes[self.column : self.column + self.width]
        np.copyto(scores, -np.inf, where=codes == self.codes[:, None])
        inside = np.flatnonzero((self.own >= 0) & (self.own < self.width))
        scores[inside, self.own[inside]] = -np.inf
        ordered = np.sort(scores, axis=1)
        # positions in the sorted strip, laid flat: from `high` on surely above, from `low` perhaps
        high = _positions(ordered, self.row, self.exact + self.reach)
        low = np.minimum(_positions(ordered, self.row, self.exact - self.reach), high)
        end = (self.row + 1) * self.width
        alive = self._surely_above() + (end - high) < self.whole.depth[self.first + self.row]
        unsure = _covered(low[alive], high[alive], ordered.size)
        above = end - high - (np.searchsorted(unsure, end) - np.searchsorted(unsure, high))
        before = np.concatenate([[0], above[:-1]])
        before[self.bounds[:-1][np.diff(self.bounds) > 0]] = 0
        self.whole.steps[self.start : self.stop] += above - before
        self._count_exactly(*_unsorted(scores, unsure))

    def _count_exactly(self, rows: np.ndarray, columns: np.ndarray) -> None:
        if not len(rows):
            return
        whole, columns = self.whole, columns + self.column
        scores = self._scores(rows, columns)
        places = whole.relevance.places[columns]
        order = np.lexsort(
            (
                np.concatenate([whole.places[self.start : self.stop], places]),
                -np.concatenate([self.exact, scores]),
                np.concatenate([self.row, rows]),
            )
        )
        is_relevant = order < len(self.exact)
        position = np.cumsum(is_relevant)[~is_relevant]  # relevant scores above, over all rows
        candidate = order[~is_relevant] - len(self.exact)
        rows, scores = rows[candidate], scores[candidate]
        self._step(rows, position)
        for beside in (position - 1, position):
            there = (beside >= self.bounds[rows]) & (beside < self.bounds[rows + 1])
            equal = beside[there][self.exact[beside[there]] == scores[there]]
            whole.tied[self.start + equal] = True
        np.add.at(whole.by_name, self.start + equal, 1)  # of those just above

    def _scores(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Exact scores [n]; equal gallery rows are scored once."""
        whole = self.whole
        if whole.originals is None:
            return score_pairs(whole.queries, self.first + rows, whole.gallery, columns)
        size = len(whole.gallery)
        pairs, which = np.unique(rows * size + whole.originals[columns], return_inverse=True)
        rows, columns = np.divmod(pairs, size)
        return score_pairs(whole.queries, self.first + rows, whole.gallery, columns)[which]

    def _surely_above(self) -> np.ndarray:
        """Irrelevant rows counted so far above each relevant score, without ties."""
        part = slice(self.start, self.stop)
        return _running(self.whole.steps[part], self.bounds) - self.whole.by_name[part]

    def _step(self, rows: np.ndarray, position: np.ndarray) -> None:
        inside = position[position < self.bounds[rows + 1]]
        self.whole.steps[self.start : self.stop] += np.bincount(inside, minlength=len(self.exact))


def _running(steps: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """Running sums of `steps` [P] within each row, whose entries begin at `starts`."""
    total = np.concatenate([[0], np.cumsum(steps)])
    return total[1:] - np.repeat(total[starts[:-1]], np.diff(starts))


def _positions(ordered: np.ndarray, rows: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Where `values` [P] fit into the ascending `rows` [P] of a table [b, n], laid flat [b n].

    Entries before the position are smaller, the others not.
    """
    flat, width = ordered.ravel(), ordered.shape[1]
    low, high = rows * width, (rows + 1) * width
    for _ in range(width.bit_length()):
        middle = (low + high) // 2
        smaller = (low < high) & (flat[np.minimum(middle, flat.size - 1)] < values)
        low = np.where(smaller, middle + 1, low)
        high = np.where(smaller | (low >= high), high, middle)
    return low


def _covered(low: np.ndarray, high: np.ndarray, length: int) -> np.ndarray:
    """The positions below `length` that lie in any of the ranges low..high, ascending."""
    if (low == high).all():
        return np.empty(0, np.int64)
    depth = np.zeros(length + 1, np.int64)
    np.add.at(depth, low, 1)
    np.add.at(depth, high, -1)
    return np.flatnonzero(np.cumsum(depth)[:-1] > 0)


def _unsorted(scores: np.ndarray, marked: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Row and column of the entries `marked` of the row-wise sorted scores, laid flat."""
    rows, places = np.divmod(marked, scores.shape[1])
    needed, which = np.unique(rows, return_inverse=True)
    order = np.argsort(scores[needed], axis=1)
    return rows, order[which, places]
