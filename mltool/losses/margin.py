"""Wu, Manmatha, Smola, Krähenbühl, Sampling Matters in Deep Embedding Learning, ICCV 2017."""

from typing import Literal

import torch
from torch import Tensor, nn

from mltool.losses._pairs import Pairs, distance
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"
NEEDS = {"labels"}


class Margin(nn.Module):
    """Positives nearer and negatives farther than a boundary beta, both by a margin.

    ( sum_p [D_ap - beta + margin]+ + sum_n [beta - D_an + margin]+ ) / (terms above zero) + nu beta

    Args:
        classes: number of classes, for one beta each.
        margin: Euclidean distance kept on both sides of the boundary.
        beta: the boundary, or where it starts if it is learned.
        learn: `none` keeps beta fixed; `scalar` learns one; `class` learns one for the class of
            each anchor.
        nu: cost of a large beta, averaged over the anchors.

    The paper mines by `distance-weighted` and learns beta per class. PML's MarginLoss counts
    triplets, so that a pair in several triplets counts as often; here a pair counts once.
    """

    def __init__(
        self,
        *,
        classes: int,
        margin: float = 0.2,
        beta: Positive = 1.2,
        learn: Literal["none", "scalar", "class"] = "none",
        nu: float = 0.0,
    ) -> None:
        super().__init__()
        self.margin = margin
        self.nu = nu
        start = torch.full((classes if learn == "class" else 1,), beta)
        self.beta = nn.Parameter(start, requires_grad=learn != "none")

    def forward(self, pairs: Pairs, labels: Tensor) -> Tensor:
        """Return the loss of `pairs` [A, B]; `labels` [A] are the class indices of the anchors."""
        beta = self.beta[labels] if len(self.beta) > 1 else self.beta.expand(len(labels))
        dist = distance(pairs.sim)
        pull = pairs.pos * (dist - beta[:, None] + self.margin).relu()
        push = pairs.neg * (beta[:, None] - dist + self.margin).relu()
        active = pull.count_nonzero() + push.count_nonzero()
        return (pull + push).sum() / active.clamp(min=1) + self.nu * beta.mean()
