"""Chen et al., A Simple Framework for Contrastive Learning (SimCLR), ICML 2020."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from mltool.moment import Moment
from mltool.pretexts import Pretext
from mltool.pretexts._heads import build_mlp
from mltool.settings import Positive

VIEWS = 2


class SimCLR(Pretext):
    """Simple contrastive learning: tell a view's partner from all other views of the batch.

    L = mean_i -log( exp(z_i.z_p(i) / t) / sum_(j != i) exp(z_i.z_j / t) ), over 2 N views

    Args:
        channels: length of the network's vectors.
        temperature: t. 0.1 on ImageNet, 0.2 to 0.5 of small data.
        hidden: width of the projector's hidden layer. 2048 for ResNet-50.
        dim: length of z.
    """

    remedy = "raise temperature=, lower --lr, or take a larger --batch-size"

    def __init__(
        self, *, channels: int, temperature: Positive = 0.2, hidden: int = 2048, dim: int = 128
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.projector = build_mlp(channels, hidden, dim, norm=True)

    def forward(self, student: Tensor, teacher: Tensor | None, moment: Moment) -> dict[str, Tensor]:
        """Return the loss of views [2, N, dim]."""
        units = functional.normalize(student, dim=-1).flatten(0, 1)
        logits = units @ units.T / self.temperature
        itself = torch.eye(len(units), dtype=torch.bool, device=units.device)
        logits = logits.masked_fill(itself, -torch.inf)
        partner = torch.arange(len(units), device=units.device).roll(len(units) // 2)
        return {"simclr": functional.cross_entropy(logits, partner)}

    def chance_loss(self, images: int) -> float:
        """Return ln(2 N - 1)."""
        return math.log(2 * images - 1)
