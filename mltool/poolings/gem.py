"""Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation, TPAMI 2019."""

import torch
from torch import Tensor, nn


class GeM(nn.Module):
    """Generalized mean of each channel, between average (p = 1) and maximum (p to infinity).

    v_c = (mean over x of max(x, eps)^p)^(1/p)

    Args:
        p: where the exponent starts; it is learned.
        eps: activations below this count as this.

    Computed in float32: the cube of a half-precision activation overflows.
    """

    def __init__(self, *, p: float = 3.0, eps: float = 1e-6) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.tensor(p))
        self.eps = eps

    def forward(self, maps: Tensor) -> Tensor:  # [B, C, H, W] -> [B, C]
        with torch.autocast(maps.device.type, enabled=False):
            wide = maps.to(torch.promote_types(maps.dtype, torch.float32))
            powers = wide.clamp(min=self.eps).pow(self.p)
            return powers.mean(dim=(2, 3)).pow(1.0 / self.p)
