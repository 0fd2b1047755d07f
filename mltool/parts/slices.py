"""Sanakoyeu et al., Divide and Conquer the Embedding Space for Metric Learning, CVPR 2019."""

from typing import Annotated, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.errors import UsageError
from mltool.parts import check_count
from mltool.settings import Neutral


class Slices(nn.Module):
    """Contiguous slices of the vector, one for each learner.

    part k of f = f[k D/K : (k + 1) D/K], of unit length by itself

    A projection has one block of rows for each slice, which start as those of an undivided layer
    (torch's default). The released code starts them by Xavier's rule for a layer of D/K rows.

    Args:
        dim: D, of the whole vector.
        count: K, the number of slices; none = as many as there are clusters. D divides by it.
        whole: what the whole vector is. `once` is f itself, normalised once. In the released code
            every slice keeps unit length to the end: `each` is the unit slices side by side, which
            normalising divides by the root of K.
    """

    in_use: Tensor  # scalar int64, how many learners have a cluster

    cuts_projection = True
    orthogonality, freeze_epochs = 0.0, 0

    def __init__(
        self,
        *,
        dim: int,
        count: int | None = None,
        whole: Annotated[Literal["once", "each"], Neutral("once")] = "once",
    ) -> None:
        super().__init__()
        count = check_count(count)
        if dim % count:
            raise UsageError(
                f"{dim} dimensions do not divide into {count} slices; choose another --dim or count"
            )
        self.count, self.part_dim, self.normalizes_each = count, dim // count, whole == "each"
        self.register_buffer("in_use", torch.zeros((), dtype=torch.int64))

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """The columns of each slice, (start, stop)."""
        return tuple((k * self.part_dim, (k + 1) * self.part_dim) for k in range(self.count))

    def forward(self, vectors: Tensor, part: int) -> Tensor:
        """Return slice `part` [B, D / K] of vectors [B, D]."""
        return vectors[:, part * self.part_dim : (part + 1) * self.part_dim]

    def whole(self, vectors: Tensor) -> Tensor:
        """Return the vectors [B, D], with `whole=each` every slice at unit length."""
        if not self.normalizes_each:
            return vectors
        return functional.normalize(vectors.unflatten(1, (self.count, -1)), dim=2).flatten(1)

    def use(self, learners: int) -> None:
        """Note that the first `learners` slices have a cluster."""
        self.in_use.fill_(learners)
