"""Whether a self-supervised run learns anything: figures for the log, and one warning."""

import logging

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.moment import Moment
from mltool.pretexts import Pretext

logger = logging.getLogger(__name__)

# The loss lies this near to that of a network which tells no two images apart; SwAV's users report
# 6.238 = ln 512 to three decimals.
LEAST_DISTANCE = 0.05
LEAST_SPREAD = 0.1
# Before which nothing is said: MoCo's projections, for one, begin nearly the same.
FIRST_STEPS, FIRST_FRACTION = 200, 0.1


class Monitor(nn.Module):
    """Watches the steps of a task; at the end of an epoch it has figures.

    `pretext/loss` is the mean loss of the epoch and `pretext/below-chance` how far it lies below
    that of a network that tells no two images apart, such as ln K. Of the last batch,
    `pretext/spread` is the standard deviation of its projections at unit length, mean over the
    dimensions, times sqrt(dim): 1 where they lie all around, 0 where they are all the same.
    `pretext/rank` is the effective rank of its embeddings, at most the number of images
    (Roy & Vetterli, The Effective Rank, 2007).
    """

    total: Tensor  # scalar, the sum of the losses of this epoch; saved with the run

    def __init__(self, pretext: Pretext) -> None:
        super().__init__()
        self._pretext = (pretext,)  # a tuple, so that it is not saved here once more
        self.register_buffer("total", torch.zeros(()))
        self._figures: dict[str, float] = {}
        self._has_warned = False

    @torch.no_grad()
    def watch(self, loss: Tensor, *, vectors: Tensor, projections: Tensor, moment: Moment) -> None:
        """Take in a step: its loss, and vectors [B, D] and projections [B, d] of its first view."""
        self.total = self.total + loss
        self._figures = {}
        if not moment.ends_epoch:
            return
        mean = float(self.total) / moment.steps
        chance = self._pretext[0].chance_loss(len(vectors))
        self._figures = {"pretext/loss": mean}
        if chance is not None:
            self._figures["pretext/below-chance"] = chance - mean
        self._figures["pretext/spread"] = measure_spread(projections)
        self._figures["pretext/rank"] = measure_rank(vectors)
        self.total = torch.zeros_like(self.total)
        self._warn(moment)

    def figures(self) -> dict[str, float]:
        """Return the figures of the epoch that the latest step has ended, if it did."""
        return self._figures

    def _warn(self, moment: Moment) -> None:
        """Warn once, when the first part of the run is over and nothing was learned."""
        epochs = moment.epoch + 1
        is_early = moment.step < FIRST_STEPS or epochs < FIRST_FRACTION * moment.epochs
        if self._has_warned or is_early:
            return
        below = self._figures.get("pretext/below-chance", LEAST_DISTANCE)
        spread = self._figures["pretext/spread"]
        if spread < LEAST_SPREAD:
            reason = f"the projections of all images are nearly the same (spread {spread:.2g})"
        elif below < LEAST_DISTANCE:
            chance = self._figures["pretext/loss"] + below
            reason = f"the loss is {chance - below:.4g}, and {chance:.4g} without any learning"
        else:
            return
        self._has_warned = True
        remedy = self._pretext[0].remedy
        logger.warning("after epoch %d nothing is learned: %s; %s", epochs, reason, remedy)


def measure_spread(vectors: Tensor) -> float:
    """Return the mean standard deviation of a dimension of unit vectors [B, D], times sqrt(D)."""
    units = functional.normalize(vectors.float())
    return float(units.std(dim=0, correction=0).mean() * units.shape[1] ** 0.5)


def measure_rank(vectors: Tensor) -> float:
    """Return the effective rank of vectors [B, D] at unit length, about their mean.

    exp(-sum_i p_i log p_i), with p the singular values divided by their sum; 0 of equal vectors.
    """
    units = functional.normalize(vectors.float())
    singular = torch.linalg.svdvals(units - units.mean(dim=0))
    total = float(singular.sum())
    if total < 1e-6:
        return 0.0
    p = singular / total
    return float(torch.special.entr(p).sum().exp())
