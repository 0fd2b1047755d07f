"""A tile: the approximate scores of some rows of two sides, given strip by strip."""

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from mltool.exact.blocks import blocks
from mltool.exact.error_bounds import Bound, Precision, bound_of
from mltool.exact.vector_set import VectorSet

SQUARE = 64  # side of the squares in which a block is transposed: fewer pages than a TLB holds


@dataclass(frozen=True, eq=False)
class Operand:
    """Rows ready to be multiplied."""

    data: object  # [n, D] a numpy array or a torch tensor
    squares: np.ndarray  # [n] float64 squared norms, used for euclidean scores
    residual: float  # largest norm of what rounding took from a row


class Tile(Protocol):
    """Approximate scores [n, m] of two operands, given strip by strip.

    Every strip is asked for as rows once, before any is asked for as columns. Strips may be
    overwritten, and live until their thread asks for the next.
    """

    @property
    def bound(self) -> Bound:
        """How far the scores may lie from the exact ones."""

    def rows(self, part: slice) -> np.ndarray:
        """Scores [n of the part, m]."""

    def columns(self, part: slice) -> np.ndarray:
        """Scores of all rows with some columns, transposed [m of the part, n]."""


@dataclass(frozen=True, eq=False)
class WholeTile:
    """A tile whose products are there; strips of rows are views of them."""

    scores: np.ndarray  # [n, m]
    left: Operand
    right: Operand
    side: VectorSet
    bound: Bound

    def rows(self, part: slice) -> np.ndarray:
        strip = self.scores[part]
        if self.side.metric == "euclidean":
            to_distances(strip, self.left.squares[part], self.right.squares)
        return strip

    def columns(self, part: slice) -> np.ndarray:
        turned = np.empty((part.stop - part.start, len(self.scores)), self.scores.dtype)
        for square in blocks(len(self.scores), SQUARE):
            turned[:, square] = self.scores[square, part].T
        return turned


def to_distances(scores: np.ndarray, left: np.ndarray, right: np.ndarray) -> None:
    """Turn products [n, m] into minus the squared distances, in place."""
    scores *= 2.0
    scores -= left[:, None].astype(scores.dtype)
    scores -= right.astype(scores.dtype)


def bound_between(precision: Precision, left: Operand, right: Operand, side: VectorSet) -> Bound:
    """How far the scores of two operands may lie from the exact ones."""
    dim, metric = side.dim, side.metric
    return bound_of(precision, left.residual, right.residual, dim=dim, metric=metric)
