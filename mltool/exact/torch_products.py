"""Multiply blocks of rows by torch, which knows bfloat16 and GPUs; imported where it pays.

>>> from mltool.exact.vector_set import make_vector_sets
>>> rows, _ = make_vector_sets(
...     (np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([b"a", b"b"])), None, metric="cosine"
... )
>>> products = TorchProducts("bfloat16", "cpu")
>>> operand = products.make_operand(rows, slice(0, 2))
>>> with products.exclusive():
...     tile = products.multiply(operand, operand, rows)
...     tile.score_rows(slice(0, 1)).tolist()  # of 0.6, bfloat16 keeps 8 bits
[[1.0, 0.6015625]]
>>> bool(tile.bound.max_error(np.array(0.6)) > 0.0015625)
True

Threads: on the processor every thread multiplies the strips it asks for, which then are in its
core's cache, so `exclusive` keeps torch from starting further threads. A GPU multiplies a tile at a
time, and its threads only read. Both hold what `products.Products` promises.
"""

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mltool.exact.error_bounds import ROUNDOFF, Bound, Precision
from mltool.exact.tile import ComputedTile, Operand, Tile, bound_products, to_distances
from mltool.exact.vector_set import VectorSet

if TYPE_CHECKING:
    import torch


class TorchProducts:
    """Products of rounded rows by torch; tiles hold numpy arrays."""

    def __init__(self, precision: Precision, device: str) -> None:
        import torch

        self.precision, self.device = precision, device
        self._dtype = {
            "float64": torch.float64,
            "float32": torch.float32,
            "bfloat16": torch.bfloat16,
        }[precision]
        # buffers are kept, because fresh pages would cost as much as the product itself
        self._product = torch.empty(0, dtype=self._dtype, device=device)
        self._result = torch.empty(0, dtype=torch.promote_types(self._dtype, torch.float32))
        self._strips = threading.local()

    @contextlib.contextmanager
    def exclusive(self) -> Iterator[None]:
        """Keep torch to one thread a call on the processor, and GPUs to exact sums."""
        import torch

        threads = torch.get_num_threads()
        if self.device == "cpu":
            torch.set_num_threads(1)
        try:
            with _require_exact_sums():
                yield
        finally:
            torch.set_num_threads(threads)

    def make_operand(self, source: VectorSet, rows: slice) -> Operand:
        """Scale and round rows, and measure what rounding took from them."""
        import torch

        is_double = self.precision == "float64"
        data = source.scale(rows) if is_double else source.scale_float32(rows)
        exact = torch.from_numpy(data)
        rounded = exact.to(self._dtype)
        lost = torch.linalg.vector_norm(exact - rounded.to(exact.dtype), dim=1)
        residual = 1.001 * float(lost.max()) if len(lost) else 0.0
        unit = ROUNDOFF["float64" if self.precision == "float64" else "float32"]
        return Operand(rounded.to(self.device), source.squares[rows], residual + 4.0 * unit)

    def multiply(self, left: Operand, right: Operand, source: VectorSet) -> Tile:
        """Return the scores of two operands, which the next call overwrites."""
        import torch

        assert isinstance(left.data, torch.Tensor)
        assert isinstance(right.data, torch.Tensor)
        shape = len(left.data), len(right.data)
        product = self._product.resize_(shape)
        bound = bound_products(self.precision, left, right, source)
        if self.device == "cpu":
            return _StripTile(product, left, right, source.metric, bound, self._strips)
        torch.mm(left.data, right.data.T, out=product)
        result = self._result.resize_(shape).copy_(product).numpy()
        return ComputedTile(result, left, right, source.metric, bound)


@dataclass(frozen=True, eq=False)
class _StripTile:
    """A tile of products on the processor, made when a strip is asked for."""

    product: "torch.Tensor"  # [n, m]
    left: Operand
    right: Operand
    metric: str
    bound: Bound
    buffers: threading.local  # a strip in float32 for each thread

    def score_rows(self, rows: slice) -> np.ndarray:
        """Multiply some rows and return their scores [p, m]."""
        import torch

        assert isinstance(self.left.data, torch.Tensor)
        assert isinstance(self.right.data, torch.Tensor)
        torch.mm(self.left.data[rows], self.right.data.T, out=self.product[rows])
        return self._convert(self.product[rows], self.left.squares[rows], self.right.squares)

    def score_columns(self, columns: slice) -> np.ndarray:
        """Return the scores of some columns with all rows, transposed [p, n]."""
        transposed = self.product[:, columns].T
        return self._convert(transposed, self.right.squares[columns], self.left.squares)

    def _convert(
        self, product: "torch.Tensor", squares: np.ndarray, others: np.ndarray
    ) -> np.ndarray:
        """Return the scores of products as float32, in this thread's buffer."""
        import torch

        size = product.numel()
        if len(getattr(self.buffers, "strip", ())) < size:
            self.buffers.strip = np.empty(size, np.float32)
        strip = self.buffers.strip[:size].reshape(product.shape)
        torch.from_numpy(strip).copy_(product)
        if self.metric == "euclidean":
            to_distances(strip, squares, others)
        return strip


@contextlib.contextmanager
def _require_exact_sums() -> Iterator[None]:
    """Refuse TF32 and bfloat16 sums inside products on a GPU: no error bound covers these."""
    import torch

    settings = torch.backends.cuda.matmul
    before = settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction
    settings.allow_tf32 = settings.allow_bf16_reduced_precision_reduction = False
    try:
        yield
    finally:
        settings.allow_tf32, settings.allow_bf16_reduced_precision_reduction = before
