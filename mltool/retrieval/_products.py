"""Blocks of approximate scores by matrix products, each with a certified bound on its error.

The bound holds for any order of summation: a product of D terms accumulated with unit roundoff u
errs by at most about D u times the product of the norms (Higham, "Accuracy and Stability of
Numerical Algorithms", 2002, section 3.1), and rounding the operands adds their measured residuals.
"""

import contextlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from mltool.errors import UsageError
from mltool.retrieval._vectors import Side

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


@dataclass(frozen=True, eq=False)
class Operand:
    """Rows ready to be multiplied."""

    data: object  # [n, D] a numpy array or a torch tensor
    squares: np.ndarray  # [n] float64 squared norms, used for euclidean scores
    residual: float  # largest norm of what rounding took from a row


class NumpyProducts:
    """Products of float32 or float64 rows on the processor."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        # kept, because fresh pages would cost as much as the product itself
        self._buffer = np.empty(0, precision)

    def operand(self, side: Side, rows: slice) -> Operand:
        """The prepared rows in this precision."""
        exact = side.prepared(rows)
        squares = np.einsum("nd,nd->n", exact, exact)
        return Operand(exact.astype(self.precision), squares, ROUNDOFF[self.precision])

    def multiply(self, left: Operand, right: Operand) -> np.ndarray:
        """[n, m] in a buffer that the next call overwrites."""
        assert isinstance(left.data, np.ndarray)
        assert isinstance(right.data, np.ndarray)
        shape = len(left.data), len(right.data)
        size = shape[0] * shape[1]
        if self._buffer.size < size:
            self._buffer = np.empty(size, self.precision)
        return np.matmul(left.data, right.data.T, out=self._buffer[:size].reshape(shape))


class TorchProducts:
    """Products of rounded rows by torch, on the processor or a GPU; results are numpy's."""

    def __init__(self, precision: Precision, device: str) -> None:
        import torch

        self.precision, self.device = precision, device
        self._dtype = {
            "float64": torch.float64,
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
        }[precision]
        self._product = torch.empty(0, dtype=self._dtype, device=device)
        self._result = torch.empty(0, dtype=torch.promote_types(self._dtype, torch.float32))

    def operand(self, side: Side, rows: slice) -> Operand:
        """The prepared rows, rounded."""
        import torch

        exact = side.prepared(rows)
        squares = np.einsum("nd,nd->n", exact, exact)
        rounded = torch.from_numpy(exact).to(self._dtype)
        exact = exact - rounded.double().numpy()
        residual = float(np.sqrt(np.einsum("nd,nd->n", exact, exact).max(initial=0.0)))
        return Operand(rounded.to(self.device), squares, 1.001 * residual + SLACK)

    def multiply(self, left: Operand, right: Operand) -> np.ndarray:
        """[n, m] in a buffer that the next call overwrites."""
        import torch

        assert isinstance(left.data, torch.Tensor)
        assert isinstance(right.data, torch.Tensor)
        shape = len(left.data), len(right.data)
        product, result = self._product.resize_(shape), self._result.resize_(shape)
        with _full_accumulation():
            torch.mm(left.data, right.data.T, out=product)
        return result.copy_(product).numpy()


Products = NumpyProducts | TorchProducts


def products_of(precision: Precision, device: str) -> Products:
    """What multiplies in this precision on this device."""
    if device == "cpu" and precision != "bfloat16":
        return NumpyProducts(precision)
    return TorchProducts(precision, device)


def scores_of(
    products: Products, left: Operand, right: Operand, side: Side
) -> tuple[np.ndarray, Bound]:
    """Approximate scores [n, m], overwritten by the next call, and their certified error."""
    scores = products.multiply(left, right)
    if side.metric == "euclidean":
        scores *= 2.0
        scores -= left.squares[:, None].astype(scores.dtype)
        scores -= right.squares.astype(scores.dtype)
    return scores, _bound(products.precision, left.residual, right.residual, side)


def usual_bound(precision: Precision, side: Side) -> Bound:
    """About the bound that blocks of this side will have."""
    residual = 2e-3 if precision == "bfloat16" else ROUNDOFF[precision]
    return _bound(precision, residual, residual, side)


def available(device: str) -> tuple[Precision, ...]:
    """The precisions that this machine multiplies, slowest first. Raises UsageError."""
    if device == "cpu":
        return ("float64", "float32", "bfloat16") if _has_bfloat16() else ("float64", "float32")
    import torch

    if not (device.startswith("cuda") and torch.cuda.is_available()):
        raise UsageError(f"no device {device!r} to search on; use cpu, or cuda where there is one")
    return ("float64", "float32", "bfloat16")


def speed(precision: Precision, device: str, cores: int) -> float:
    """Rough floating-point operations a second; decides between precisions, never a result."""
    if device != "cpu":
        return {"float64": 5e11, "float32": 2e12, "bfloat16": 3e12}[precision]
    return cores * {"float64": 6e10, "float32": 1.4e11, "bfloat16": 5e11}[precision]


def start_up(precision: Precision) -> float:
    """Seconds until the first product: importing torch."""
    return 2.5 if precision == "bfloat16" and "torch" not in sys.modules else 0.0


def _bound(precision: Precision, left: float, right: float, side: Side) -> Bound:
    """The error of products whose operands were rounded by `left` and `right` at most."""
    unit = ROUNDOFF["float64" if precision == "float64" else "float32"]
    # twice: some matrix units truncate where they should round
    summed = 2.0 * (side.dim + 16) * unit
    absolute = left + right + left * right + summed + SLACK
    relative = ROUNDOFF["bfloat16"] if precision == "bfloat16" else 0.0
    if side.metric != "euclidean":
        return Bound(absolute, relative)
    return Bound(2.0 * (absolute + relative) + 32.0 * unit, 0.0)


def _has_bfloat16() -> bool:
    # read here because torch, which could tell, takes seconds to import
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                words = line.split()
                return "amx_bf16" in words or "avx512_bf16" in words
    return False


@contextlib.contextmanager
def _full_accumulation() -> Iterator[None]:
    """No TF32 and no bfloat16 sums inside products on a GPU."""
    import torch

    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction
    settings.allow_tf32 = settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction = before
