"""What multiplies blocks of rows, and how fast."""

import contextlib
import functools
import sys
from typing import Protocol

import numpy as np

from mltool.errors import UsageError
from mltool.exact.error_bounds import ROUNDOFF, Precision
from mltool.exact.tile import Operand, Tile, WholeTile, bound_between
from mltool.exact.vector_set import VectorSet


class Products(Protocol):
    """Multiplies rows in one precision on one device."""

    precision: Precision

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Stands around a sweep, whose threads all ask for tiles' strips."""

    def operand(self, side: VectorSet, rows: slice) -> Operand:
        """The rows, ready to be multiplied."""

    def tile(self, left: Operand, right: Operand, side: VectorSet) -> Tile:
        """The scores of two operands, overwritten by the next call."""


class NumpyProducts:
    """Products of float32 or float64 rows by numpy, a whole tile at a time on all cores."""

    def __init__(self, precision: Precision) -> None:
        self.precision = precision
        # kept, because fresh pages would cost as much as the product itself
        self._buffer = np.empty(0, precision)

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Around a sweep; nothing is needed."""
        return contextlib.nullcontext()

    def operand(self, side: VectorSet, rows: slice) -> Operand:
        """The prepared rows in this precision."""
        data = side.prepared(rows) if self.precision == "float64" else side.rounded(rows)
        return Operand(data, side.squares[rows], 4.0 * ROUNDOFF[self.precision])

    def tile(self, left: Operand, right: Operand, side: VectorSet) -> Tile:
        """Scores that the next call overwrites."""
        assert isinstance(left.data, np.ndarray)
        assert isinstance(right.data, np.ndarray)
        shape = len(left.data), len(right.data)
        size = shape[0] * shape[1]
        if self._buffer.size < size:
            self._buffer = np.empty(size, self.precision)
        product = self._buffer[:size].reshape(shape)
        np.matmul(left.data, right.data.T, out=product)
        return WholeTile(
            product, left, right, side, bound_between(self.precision, left, right, side)
        )


def products_of(precision: Precision, device: str) -> Products:
    """What multiplies in this precision on this device."""
    if device == "cpu" and precision != "bfloat16":
        return NumpyProducts(precision)
    from mltool.exact.torch_products import TorchProducts

    return TorchProducts(precision, device)


def available(device: str) -> tuple[Precision, ...]:
    """The precisions that this machine multiplies, slowest first. Raises UsageError."""
    if device == "cpu":
        multiplied = features() & {"amx_bf16", "avx512_bf16", "bf16"}
        return ("float64", "float32", "bfloat16") if multiplied else ("float64", "float32")
    import torch

    there = [f"cuda:{number}" for number in range(torch.cuda.device_count())]
    if device not in ["cuda", *there] or not there:
        raise UsageError(f"no device {device!r} to search on; use cpu, or cuda where there is one")
    return ("float64", "float32", "bfloat16")


def speed(precision: Precision, device: str, cores: int) -> float:
    """Rough floating-point operations a second; decides between precisions, never a result."""
    if device != "cpu":
        return {"float64": 5e11, "float32": 2e12, "bfloat16": 3e12}[precision]
    matrix_unit = "amx_bf16" in features()
    bfloat16 = 1e12 if matrix_unit else 3e11
    return cores * {"float64": 8e10, "float32": 1.7e11, "bfloat16": bfloat16}[precision]


def start_up(precision: Precision) -> float:
    """Seconds until the first product: importing torch."""
    return 2.5 if precision == "bfloat16" and "torch" not in sys.modules else 0.0


@functools.cache
def features() -> frozenset[str]:
    """What the processor says it can do; empty where the system does not tell."""
    # read here because torch, which could tell, takes seconds to import
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="ascii") as file:
        for line in file:
            if line.startswith(("flags", "Features")):
                return frozenset(line.split())
    return frozenset()
