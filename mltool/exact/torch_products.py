"""Products by torch, which multiplies bfloat16 and knows GPUs; imported where it pays."""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mltool.exact.error_bounds import ROUNDOFF, Bound, Precision
from mltool.exact.tile import Operand, Tile, WholeTile, bound_between, to_distances
from mltool.exact.vector_set import VectorSet

if TYPE_CHECKING:
    import torch


class TorchProducts:
    """Products of rounded rows by torch; tiles hold numpy arrays.

    On the processor every thread multiplies its own strips, which then are in its cache; a GPU
    multiplies a tile at a time.
    """

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
        self._strips = threading.local()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Around a sweep: a thread's products are its own, exact sums are asked of a GPU."""
        import torch

        threads = torch.get_num_threads()
        if self.device == "cpu":
            torch.set_num_threads(1)
        try:
            with _full_accumulation():
                yield
        finally:
            torch.set_num_threads(threads)

    def operand(self, side: VectorSet, rows: slice) -> Operand:
        """The prepared rows, rounded."""
        import torch

        data = side.prepared(rows) if self.precision == "float64" else side.rounded(rows)
        exact = torch.from_numpy(data)
        rounded = exact.to(self._dtype)
        lost = torch.linalg.vector_norm(exact - rounded.to(exact.dtype), dim=1)
        residual = 1.001 * float(lost.max()) if len(lost) else 0.0
        unit = ROUNDOFF["float64" if self.precision == "float64" else "float32"]
        return Operand(rounded.to(self.device), side.squares[rows], residual + 4.0 * unit)

    def tile(self, left: Operand, right: Operand, side: VectorSet) -> Tile:
        """Scores that the next call overwrites."""
        import torch

        assert isinstance(left.data, torch.Tensor)
        assert isinstance(right.data, torch.Tensor)
        shape = len(left.data), len(right.data)
        product = self._product.resize_(shape)
        bound = bound_between(self.precision, left, right, side)
        if self.device == "cpu":
            return _StripTile(product, left, right, side, bound, self._strips)
        torch.mm(left.data, right.data.T, out=product)
        result = self._result.resize_(shape).copy_(product).numpy()
        return WholeTile(result, left, right, side, bound)


@dataclass(frozen=True, eq=False)
class _StripTile:
    """A tile of bfloat16 products on the processor, made when a strip is asked for."""

    product: "torch.Tensor"  # [n, m]
    left: Operand
    right: Operand
    side: VectorSet
    bound: Bound
    buffers: threading.local  # a strip in float32 for each thread

    def rows(self, part: slice) -> np.ndarray:
        import torch

        assert isinstance(self.left.data, torch.Tensor)
        assert isinstance(self.right.data, torch.Tensor)
        torch.mm(self.left.data[part], self.right.data.T, out=self.product[part])
        return self._scores(self.product[part], self.left.squares[part], self.right.squares)

    def columns(self, part: slice) -> np.ndarray:
        turned = self.product[:, part].T
        return self._scores(turned, self.right.squares[part], self.left.squares)

    def _scores(
        self, product: "torch.Tensor", squares: np.ndarray, others: np.ndarray
    ) -> np.ndarray:
        import torch

        size = product.numel()
        if len(getattr(self.buffers, "strip", ())) < size:
            self.buffers.strip = np.empty(size, np.float32)
        strip = self.buffers.strip[:size].reshape(product.shape)
        torch.from_numpy(strip).copy_(product)
        if self.side.metric == "euclidean":
            to_distances(strip, squares, others)
        return strip


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
