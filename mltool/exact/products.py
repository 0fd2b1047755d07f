"""Multiply blocks of rows: by numpy here, by torch in `torch_products`; and say how fast that is.

>>> from mltool.exact.vector_set import make_vector_sets
>>> rows, _ = make_vector_sets(
...     (np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([b"a", b"b"])), None, metric="cosine"
... )
>>> products = make_products("float64", "cpu")
>>> left = products.make_operand(rows, slice(0, 1))
>>> right = products.make_operand(rows, slice(0, 2))
>>> with products.exclusive():
...     products.multiply(left, right, rows).score_rows(slice(0, 1)).tolist()
[[1.0, 0.6]]

Threads: one thread makes operands and tiles; many threads ask a tile for its strips. All of it
happens inside `exclusive()`. A tile is overwritten when the next one is made.
"""

import contextlib
import functools
import sys
from typing import Protocol

import numpy as np

from mltool.errors import UsageError
from mltool.exact.error_bounds import ROUNDOFF, Precision
from mltool.exact.tile import ComputedTile, Operand, Tile, bound_products
from mltool.exact.vector_set import VectorSet


class Products(Protocol):
    """Multiplies rows in one precision on one device."""

    precision: Precision

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Set process-wide numerical settings for a sweep, and restore them after it."""

    def make_operand(self, source: VectorSet, rows: slice) -> Operand:
        """Round rows, ready to be multiplied."""

    def multiply(self, left: Operand, right: Operand, source: VectorSet) -> Tile:
        """Return the scores of two operands, which the next call overwrites.

        Metric and dimension are those of `source`.
        """


class NumpyProducts:
    """Products of float32 or float64 rows by numpy, a whole tile at a time on all cores."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        # kept, because fresh pages would cost as much as the product itself
        self._buffer = np.empty(0, precision)

    def exclusive(self) -> contextlib.AbstractContextManager[None]:
        """Return a context that sets nothing: numpy needs no settings."""
        return contextlib.nullcontext()

    def make_operand(self, source: VectorSet, rows: slice) -> Operand:
        """Scale rows in this precision."""
        is_double = self.precision == "float64"
        data = source.scale(rows) if is_double else source.scale_float32(rows)
        return Operand(data, source.squares[rows], 4.0 * ROUNDOFF[self.precision])

    def multiply(self, left: Operand, right: Operand, source: VectorSet) -> Tile:
        """Return the scores of two operands, which the next call overwrites."""
        assert isinstance(left.data, np.ndarray)
        assert isinstance(right.data, np.ndarray)
        shape = len(left.data), len(right.data)
        size = shape[0] * shape[1]
        if self._buffer.size < size:
            self._buffer = np.empty(size, self.precision)
        product = self._buffer[:size].reshape(shape)
        np.matmul(left.data, right.data.T, out=product)
        bound = bound_products(self.precision, left, right, source)
        return ComputedTile(product, left, right, source.metric, bound)


def make_products(precision: Precision, device: str) -> Products:
    """Choose what multiplies in a precision on a device."""
    if device == "cpu" and precision != "bfloat16":
        return NumpyProducts(precision)
    from mltool.exact.torch_products import TorchProducts

    return TorchProducts(precision, device)


def list_precisions(device: str) -> tuple[Precision, ...]:
    """List the precisions that a device multiplies, slowest first.

    Raises UsageError for a device that this machine lacks.
    """
    if device == "cpu":
        multiplies_bfloat16 = read_processor_flags() & {"amx_bf16", "avx512_bf16", "bf16"}
        if multiplies_bfloat16:
            return ("float64", "float32", "bfloat16")
        return ("float64", "float32")
    import torch

    devices = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device not in ["cuda", *devices] or not devices:
        raise UsageError(f"no device {device!r} to search on; use cpu, or cuda where there is one")
    return ("float64", "float32", "bfloat16")


def estimate_speed(precision: Precision, device: str, cores: int) -> float:
    """Estimate floating-point operations a second; decides between precisions, never a result."""
    if device != "cpu":
        return {"float64": 5e11, "float32": 2e12, "bfloat16": 3e12}[precision]
    matrix_unit = "amx_bf16" in read_processor_flags()
    bfloat16 = 1e12 if matrix_unit else 3e11
    return cores * {"float64": 8e10, "float32": 1.7e11, "bfloat16": bfloat16}[precision]


def estimate_start_up(precision: Precision) -> float:
    """Estimate the seconds until the first product: those of importing torch."""
    return 2.5 if precision == "bfloat16" and "torch" not in sys.modules else 0.0


@functools.cache
def read_processor_flags() -> frozenset[str]:
    """Read what the processor says it can do; empty where the system does not tell."""
    # read here because torch, which could tell, takes seconds to import
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return frozenset(line.split())
    return frozenset()
