"""How far approximate scores lie from the exact ones, certified.

The bound holds for any order of summation: a product of D terms accumulated with unit roundoff u
errs by at most about D u times the product of the norms (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 3.1), and rounding the operands adds their measured residuals.
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

    def around(self, scores: np.ndarray) -> np.ndarray:
        """How far from each exact score its approximation may lie, elementwise."""
        return self.absolute + self.relative * (np.abs(scores) + self.absolute)


def bound_of(precision: Precision, left: float, right: float, *, dim: int, metric: str) -> Bound:
    """The error of products of rows from which rounding took `left` and `right` at most."""
    unit = ROUNDOFF["float64" if precision == "float64" else "float32"]
    # twice: some matrix units truncate where they should round
    summed = 2.0 * (dim + 16) * unit
    absolute = left + right + left * right + summed + SLACK
    relative = ROUNDOFF["bfloat16"] if precision == "bfloat16" else 0.0
    if metric != "euclidean":
        return Bound(absolute, relative)
    return Bound(2.0 * (absolute + relative) + 32.0 * unit, 0.0)


def usual_bound(precision: Precision, *, dim: int, metric: str) -> Bound:
    """About the bound that blocks of unit rows will have."""
    residual = 2e-3 if precision == "bfloat16" else 4.0 * ROUNDOFF[precision]
    return bound_of(precision, residual, residual, dim=dim, metric=metric)
