"""Find all pairs of rows of one set whose score reaches a threshold.

>>> from mltool.exact.vector_set import make_vector_sets
>>> rows, _ = make_vector_sets(
...     (np.array([[1.0, 0.0], [0.8, 0.6], [0.6, 0.8]]), np.array([b"a", b"b", b"c"])),
...     None,
...     metric="cosine",
... )
>>> pairs = find_close_pairs(rows, min_score=0.7, resources=Resources())
>>> pairs.first.tolist(), pairs.second.tolist(), pairs.scores.round(2).tolist()
([0, 1], [1, 2], [0.8, 0.96])

Of each tile the pairs whose approximate score could reach the threshold are scored exactly. A pair
is handed over from both of its sides; that of the lower row counts.

Threads: as `scan` says; what several threads write, a list, takes one item at a time.
"""

from dataclasses import dataclass

import numpy as np

from mltool.errors import ResourceError
from mltool.exact.error_bounds import Bound
from mltool.exact.knn import Resources, run_visitor
from mltool.exact.scan import Candidates
from mltool.exact.vector_set import VectorSet, from_user_units, score_pairs, to_user_units

PAIR_BYTES = 64  # memory of a pair, while all pairs are sorted


@dataclass(frozen=True, eq=False)
class ClosePairs:
    """Pairs of rows, each once, ordered by the first row and then by the second."""

    first: np.ndarray  # [P] int64
    second: np.ndarray  # [P] int64, above the first
    scores: np.ndarray  # [P] float64: cosine, dot product or minus the distance


class PairCollector:
    """A visitor that ends with all pairs of its rows that score at least `lowest`.

    Raises ResourceError when more than `most` pairs do.
    """

    def __init__(self, rows: VectorSet, *, lowest: float, most: int) -> None:
        self.queries = self.gallery = rows
        self.lowest, self.most, self.count = lowest, most, 0
        self.chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []

    def thresholds(self, rows: slice, bound: Bound) -> np.ndarray:
        """Return the approximate score [n] that a pair must reach, the same for all queries."""
        lowest = np.full(rows.stop - rows.start, self.lowest)
        return lowest - bound.max_error(lowest)

    def accept(self, candidates: Candidates, bound: Bound) -> None:
        """Score candidates exactly and keep those that reach the threshold."""
        once = candidates.columns > candidates.queries
        first, second = candidates.queries[once], candidates.columns[once]
        scores = score_pairs(self.queries, first, self.gallery, second)
        close = scores >= self.lowest
        self.chunks.append((first[close], second[close], scores[close]))
        self.count = sum(len(chunk[0]) for chunk in self.chunks)
        if self.count > self.most:
            raise ResourceError(
                f"{self.count:,} and more pairs are this close; raise --min-score or --max-memory"
            )

    def accept_dense(self, scores: np.ndarray, row: int, column: int, bound: Bound) -> None:
        """Keep the close pairs among all scores [n, m]."""
        lowest = self.thresholds(slice(row, row + len(scores)), bound)
        mask = scores >= np.nextafter(lowest.astype(scores.dtype), -np.inf)[:, None]
        rows, columns = np.divmod(np.flatnonzero(mask), scores.shape[1])
        self.accept(Candidates(rows + row, columns + column, scores[:0]), bound)

    def estimate_rescored_fraction(
        self, rows: np.ndarray, scores: np.ndarray, bound: Bound
    ) -> float:
        """Estimate the share of pairs scored exactly, from sampled approximate scores [n, m]."""
        if not scores.size:
            return 0.0
        lowest = np.full(len(scores), self.lowest)
        return float(np.mean(scores >= (lowest - 2.0 * bound.max_error(lowest))[:, None]))


def find_close_pairs(rows: VectorSet, *, min_score: float, resources: Resources) -> ClosePairs:
    """Find the pairs of rows whose cosine, dot product or minus distance is at least `min_score`.

    Raises ResourceError for too little memory, for the search or for the pairs.
    """
    lowest = from_user_units(min_score, rows)
    collector = PairCollector(rows, lowest=lowest, most=resources.max_memory // (2 * PAIR_BYTES))
    if lowest < np.inf and len(rows):
        run_visitor(collector, resources)
    empty = np.zeros(0, np.int64)
    chunks = [(empty, empty, np.zeros(0)), *collector.chunks]
    first, second, scores = (np.concatenate(arrays) for arrays in zip(*chunks, strict=True))
    order = np.lexsort((second, first))
    return ClosePairs(first[order], second[order], to_user_units(scores[order], rows))
