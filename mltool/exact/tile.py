"""A tile: the approximate scores of a block of queries with a block of gallery rows.

A tile of 2 queries and 3 gallery rows gives its scores strip by strip, a strip being a few of its
rows, or a few of its columns, transposed:

>>> products = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.4]])
>>> left, right = Operand(None, np.ones(2), 0.0), Operand(None, np.ones(3), 0.0)
>>> tile = ComputedTile(products, left, right, "cosine", Bound(0.0, 0.0))
>>> tile.score_rows(slice(1, 2)).tolist()
[[0.3, 0.8, 0.4]]
>>> tile.score_columns(slice(0, 2)).tolist()
[[0.9, 0.3], [0.2, 0.8]]

Threads: several threads ask for strips of one tile at a time. Every strip is asked for as rows
exactly once, and all of them before any is asked for as columns. The thread that asked may
overwrite a strip, which lives until that thread asks for its next one.
"""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mltool.exact.blocks import split_rows
from mltool.exact.error_bounds import Bound, Precision, compute_bound
from mltool.exact.vector_set import VectorSet

TRANSPOSED = 64  # side of the squares that are transposed at a time: fewer pages than a TLB holds


@dataclass(frozen=True, eq=False)
class Operand:
    """A block of rows, rounded and ready to be multiplied."""

    data: object  # [n, D] a numpy array or a torch tensor
    squares: np.ndarray  # [n] float64 squared norms, used for euclidean scores
    residual: float  # largest norm of what rounding took from a row


class Tile(Protocol):
    """Approximate scores [n, m] of two operands; see the head of this file for the order of use."""

    @property
    def bound(self) -> Bound:
        """How far the scores may lie from the exact ones."""

    def score_rows(self, rows: slice) -> np.ndarray:
        """Return the scores [p, m] of some rows."""

    def score_columns(self, columns: slice) -> np.ndarray:
        """Return the scores of some columns with all rows, transposed [p, n]."""


@dataclass(frozen=True, eq=False)
class ComputedTile:
    """A tile whose products are all computed; strips of rows are views of them."""

    scores: np.ndarray  # [n, m] products; a strip of rows turns its products into scores, in place
    left: Operand
    right: Operand
    metric: str
    bound: Bound

    def score_rows(self, rows: slice) -> np.ndarray:
        """Return the scores [p, m] of some rows, a view."""
        strip = self.scores[rows]
        if self.metric == "euclidean":
            to_distances(strip, self.left.squares[rows], self.right.squares)
        return strip

    def score_columns(self, columns: slice) -> np.ndarray:
        """Return the scores of some columns with all rows, transposed [p, n], a copy."""
        transposed = np.empty((columns.stop - columns.start, len(self.scores)), self.scores.dtype)
        for square in split_rows(len(self.scores), TRANSPOSED):
            transposed[:, square] = self.scores[square, columns].T
        return transposed


def to_distances(scores: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Turn products [n, m] into minus the squared distances, in place.

    `left` [n] and `right` [m] are the squared norms of the rows.
    """
    scores *= 2.0
    scores -= left[:, None].astype(scores.dtype)
    scores -= right.astype(scores.dtype)


def bound_products(precision: Precision, left: Operand, right: Operand, rows: VectorSet) -> Bound:
    """Bound the error of the scores of two operands, compared by the metric of `rows`."""
    dim, metric = rows.dim, rows.metric
    return compute_bound(precision, left.residual, right.residual, dim=dim, metric=metric)
