"""Bound how far an approximate score lies from the exact one.

Products in float32 of 512-dimensional rows of unit length err by at most 0.000063:

>>> bound = compute_bound("float32", 0.0, 0.0, dim=512, metric="cosine")
>>> f"{bound.max_error(np.array(0.7)):.6f}"
'0.000063'

A row at about 0.7001 is therefore surely above one whose exact score is 0.7, and one at about
0.70005 has to be scored exactly before anybody may say which is the nearer.

The bound holds for any order of summation: a product of D terms accumulated with unit roundoff u
errs by at most about D u times the product of the norms (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 3.1), and rounding the operands adds their measured residuals.

Threads: everything here is pure.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

Precision = Literal["float64", "float32", "bfloat16"]

SLACK = 2.0**-35  # covers float64 rounding in the exact scores and in the keys built from them
ROUNDOFF = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}


@dataclass(frozen=True)
class Bound:
    """|approximate - exact| <= absolute + relative (|exact| + absolute)."""

    absolute: float
    relative: float

    def max_error(self, scores: np.ndarray) -> np.ndarray:
        """Return how far from each exact score its approximation may lie, elementwise."""
        return self.absolute + self.relative * (np.abs(scores) + self.absolute)


def compute_bound(
    precision: Precision, left: float, right: float, *, dim: int, metric: str
) -> Bound:
    """Bound the error of scores from products of rounded rows.

    `left` and `right` are the largest norms of what rounding took from a row of either operand.
    """
    unit = ROUNDOFF["float64" if precision == "float64" else "float32"]
    # twice: some matrix units truncate where they should round
    summed = 2.0 * (dim + 16) * unit
    absolute = left + right + left * right + summed + SLACK
    # bfloat16 products are summed in float32, but stored in bfloat16 again
    relative = ROUNDOFF["bfloat16"] if precision == "bfloat16" else 0.0
    if metric != "euclidean":
        return Bound(absolute, relative)
    # |x|^2 + |y|^2 - 2 x y: twice the product's error, and the roundings of the two subtractions
    return Bound(2.0 * (absolute + relative) + 32.0 * unit, 0.0)


def estimate_bound(precision: Precision, *, dim: int, metric: str) -> Bound:
    """Estimate the bound that blocks of unit rows will have, before any is rounded."""
    residual = 2e-3 if precision == "bfloat16" else 4.0 * ROUNDOFF[precision]
    return compute_bound(precision, residual, residual, dim=dim, metric=metric)
