"""Learnable class representatives, for losses whose anchors or candidates are proxies."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.models.precision import widen


class Proxies(nn.Module):
    """`per_class` proxies for each of `classes`, rows [classes * per_class, dim].

    Rows are in class order with a class's proxies adjacent. Only the direction of a proxy counts:
    `forward` gives unit vectors.
    """

    labels: Tensor  # [classes * per_class], the class of each row

    def __init__(self, classes: int, dim: int, *, per_class: int = 1) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(classes * per_class, dim))
        # Kim et al. 2020: proxies start with kaiming fan_out, and learn 100 times faster
        nn.init.kaiming_normal_(self.weight, mode="fan_out")
        labels = torch.arange(classes).repeat_interleave(per_class)
        self.register_buffer("labels", labels, persistent=False)

    def forward(self) -> Tensor:
        """Return unit proxies [classes * per_class, dim], float32 at least."""
        return functional.normalize(widen(self.weight))
