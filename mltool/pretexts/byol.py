"""Grill et al., Bootstrap Your Own Latent, NeurIPS 2020."""

import math

from torch import Tensor
from torch.nn import functional

from mltool.moment import Moment
from mltool.pretexts import Pretext
from mltool.pretexts._heads import build_mlp
from mltool.settings import Fraction

VIEWS = 2
MOMENTUM = True


class BYOL(Pretext):
    """Bootstrap your own latent: predict what a slow copy makes of the other view, no negatives.

    L = mean_i |u1 - z2|^2 + |u2 - z1|^2, of unit length, u the student's prediction, z the copy's

    Args:
        channels: length of the network's vectors.
        momentum: m at the start; it rises to 1, m = 1 - (1 - momentum) (cos(pi s / S) + 1) / 2 at
            step s of S. 0.996 for 1000 epochs of ImageNet, 0.99 for 100 to 300, 0.97 for 40.
        hidden: width of the hidden layers of projector and predictor. 4096 in the paper; 1024 of
            small data (lightly's benchmarks).
        dim: length of projection and prediction.

    Projector and predictor have batch normalisation behind their hidden layer and none behind the
    last. Both views pass them together; in the authors' code one after the other. Only the student
    has a predictor.
    """

    remedy = "raise momentum=, lower --lr, or take a larger --batch-size"

    def __init__(
        self, *, channels: int, momentum: Fraction = 0.99, hidden: int = 4096, dim: int = 256
    ) -> None:
        super().__init__()
        self._momentum = momentum
        self.projector = build_mlp(channels, hidden, dim, norm=True)
        self.predictor = build_mlp(dim, hidden, dim, norm=True)

    def forward(self, student: Tensor, teacher: Tensor | None, moment: Moment) -> dict[str, Tensor]:
        """Return the loss of views [2, N, dim], from 0 to 8."""
        assert teacher is not None
        return {"byol": compare_crosswise(self.predictor(student), teacher)}

    def momentum(self, moment: Moment) -> float:
        """Return m of a step, rising to 1."""
        return 1 - (1 - self._momentum) * (math.cos(math.pi * moment.progress) + 1) / 2


def compare_crosswise(predictions: Tensor, targets: Tensor) -> Tensor:
    """Return the mean squared distance of each view from the other, summed: [2, N, D] each."""
    units, others = (functional.normalize(each, dim=-1) for each in (predictions, targets.flip(0)))
    return (2 - 2 * (units * others).sum(dim=-1)).mean(dim=1).sum()
