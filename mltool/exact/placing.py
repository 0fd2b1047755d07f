"""Placing irrelevant rows between the relevant rows of some queries, surely or exactly."""

from typing import TYPE_CHECKING

import numpy as np

from mltool.exact.duplicates import Copies
from mltool.exact.error_bounds import Bound
from mltool.exact.vector_set import score_pairs

if TYPE_CHECKING:
    from mltool.exact.ranks import Counting

NOTHING = 100.0  # above every score
SPREAD = 8.0  # scores lie in [-4, 1], so keys SPREAD * row - score of two rows never mix


class Part:
    """Some queries: their relevant scores as ascending keys for binary search."""

    def __init__(self, whole: "Counting", first: int, rows: int, bound: Bound) -> None:
        self.whole, self.first, self.rows, self.bound = whole, first, rows, bound
        self.bounds = whole.starts[first : first + rows + 1]
        self.start, self.stop = int(self.bounds[0]), int(self.bounds[-1])
        self.bounds = self.bounds - self.start
        self.exact = whole.scores[self.start : self.stop]
        self.row = np.repeat(np.arange(rows), np.diff(self.bounds))  # of each relevant score
        self.reach = bound.around(self.exact)
        self.codes = whole.relevance.query_codes[first : first + rows]
        self.own = whole.relevance.own[first : first + rows]

    def worst_within(self, depth: np.ndarray) -> np.ndarray:
        """Of each row the lowest relevant score that is not lost, NOTHING if all are."""
        alive = self._surely_above() < depth[self.first + self.row]
        last = self.bounds[:-1] + np.bincount(self.row[alive], minlength=self.rows) - 1
        inside = last >= self.bounds[:-1]
        return np.where(inside, self.exact[np.maximum(last, 0)], NOTHING)

    def count_some(self, rows: np.ndarray, columns: np.ndarray, scores: np.ndarray) -> None:
        """Count approximate scores [n] of these rows of the part with these gallery rows."""
        number = self._irrelevant(rows, columns)
        kept = number > 0
        rows, columns, scores, number = rows[kept], columns[kept], scores[kept], number[kept]
        keys = SPREAD * rows - scores
        base = SPREAD * self.row - self.exact
        below = np.searchsorted(base - self.reach, keys, side="right")  # from here surely below
        unsure = (base + self.reach)[np.maximum(below - 1, 0)] >= keys
        unsure &= below > 0
        self._step(rows[~unsure], below[~unsure], number[~unsure])
        worst = self.worst_within(self.whole.depth)  # what is sure may have lost some
        unsure &= scores >= (worst - self.bound.around(worst))[rows]
        self._count_exactly(rows[unsure], columns[unsure])

    def count_all(self, scores: np.ndarray, column: int) -> None:
        """Count all scores [rows, m] with the gallery rows from `column` on."""
        if self.whole.copies is None:
            self._count_sorted(scores, column)
        else:
            rows, columns = np.divmod(np.arange(scores.size), scores.shape[1])
            self.count_some(rows, columns + column, scores.ravel())

    def _irrelevant(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """How many irrelevant rows [n] each gallery row stands for."""
        codes, own = self.codes[rows], self.own[rows]
        if self.whole.copies is not None:
            return self.whole.copies.irrelevant(codes, own, columns)
        there = (self.whole.relevance.gallery_codes[columns] != codes) & (columns != own)
        return there.astype(np.int64)

    def _count_sorted(self, scores: np.ndarray, column: int) -> None:
        """Count all scores, sorted by row."""
        width = scores.shape[1]
        codes = self.whole.relevance.gallery_codes[column : column + width]
        np.copyto(scores, -np.inf, where=codes == self.codes[:, None])
        own = self.own - column
        inside = np.flatnonzero((own >= 0) & (own < width))
        scores[inside, own[inside]] = -np.inf
        ordered = np.sort(scores, axis=1)
        # positions in the sorted strip, laid flat: from `high` on surely above, from `low` perhaps
        high = _positions(ordered, self.row, self.exact + self.reach)
        low = np.minimum(_positions(ordered, self.row, self.exact - self.reach), high)
        end = (self.row + 1) * width
        alive = self._surely_above() + (end - high) < self.whole.depth[self.first + self.row]
        unsure = covered(low[alive], high[alive], ordered.size)
        above = end - high - (np.searchsorted(unsure, end) - np.searchsorted(unsure, high))
        before = np.concatenate([[0], above[:-1]])
        before[self.bounds[:-1][np.diff(self.bounds) > 0]] = 0
        self.whole.steps[self.start : self.stop] += above - before
        rows, columns = _unsorted(scores, unsure)
        self._count_exactly(rows, columns + column)

    def _count_exactly(self, rows: np.ndarray, columns: np.ndarray) -> None:
        if not len(rows):
            return
        whole = self.whole
        if whole.copies is not None:
            self._count_copies(whole.copies, rows, columns)
            return
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
        self._step(rows, position, np.ones(len(rows), np.int64))
        for beside in (position - 1, position):
            there = (beside >= self.bounds[rows]) & (beside < self.bounds[rows + 1])
            equal = beside[there][self.exact[beside[there]] == scores[there]]
            whole.tied[self.start + equal] = True
        np.add.at(whole.by_name, self.start + equal, 1)  # of those just above

    def _scores(self, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        """Exact scores [n]; equal gallery rows are scored once."""
        whole = self.whole
        if whole.equal is None:
            return score_pairs(whole.queries, self.first + rows, whole.gallery, columns)
        size = len(whole.gallery)
        pairs, which = np.unique(rows * size + whole.equal[columns], return_inverse=True)
        rows, columns = np.divmod(pairs, size)
        return score_pairs(whole.queries, self.first + rows, whole.gallery, columns)[which]

    def _surely_above(self) -> np.ndarray:
        """Irrelevant rows counted so far above each relevant score, without ties."""
        part = slice(self.start, self.stop)
        return running(self.whole.steps[part], self.bounds) - self.whole.by_name[part]

    def _count_copies(self, copies: Copies, rows: np.ndarray, groups: np.ndarray) -> None:
        """Count all irrelevant rows of some groups of equal ones."""
        scores = score_pairs(self.whole.queries, self.first + rows, self.whole.gallery, groups)
        number = self._irrelevant(rows, groups)
        low = self._first_below(rows, scores, equal=True)
        high = self._first_below(rows, scores, equal=False)
        ties = high - low  # relevant rows with the same score, in the order of names
        which = np.repeat(np.arange(len(rows)), ties)
        tied = np.arange(len(which)) + np.repeat(low - np.cumsum(ties) + ties, ties)
        asked, places = rows[which], self.whole.places[self.start + tied]
        before = copies.before(self.codes[asked], self.own[asked], groups[which], places)
        steps = np.diff(before, prepend=0)
        steps[tied == low[which]] = before[tied == low[which]]
        self._step(asked, tied, steps)
        np.add.at(self.whole.by_name, self.start + tied, steps)
        last = np.zeros(len(rows), np.int64)
        last[ties > 0] = before[np.cumsum(ties)[ties > 0] - 1]
        self._step(rows, high, number - last)
        beside = [tied[steps > 0], tied[(steps > 0) & (tied > low[which])] - 1]
        beside.append(high[(ties > 0) & (number > last)] - 1)
        self.whole.tied[self.start + np.concatenate(beside)] = True

    def _first_below(self, rows: np.ndarray, scores: np.ndarray, *, equal: bool) -> np.ndarray:
        """The first relevant score of each row that is below `scores` [n], or `equal` to it."""
        low, high = self.bounds[rows], self.bounds[rows + 1]
        while (low < high).any():
            middle = (low + high) // 2
            found = self.exact[np.minimum(middle, len(self.exact) - 1)]
            above = (low < high) & ((found > scores) if equal else (found >= scores))
            high = np.where(above | (low >= high), high, middle)
            low = np.where(above, middle + 1, low)
        return low

    def _step(self, rows: np.ndarray, position: np.ndarray, number: np.ndarray) -> None:
        inside = position < self.bounds[rows + 1]
        np.add.at(self.whole.steps[self.start : self.stop], position[inside], number[inside])


def running(steps: np.ndarray, starts: np.ndarray) -> np.ndarray:
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


def covered(low: np.ndarray, high: np.ndarray, length: int) -> np.ndarray:
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
