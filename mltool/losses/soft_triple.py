"""Qian et al., SoftTriple Loss: Deep Metric Learning Without Triplet Sampling, ICCV 2019."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltool.losses._pairs import Pairs, distance, softmax_loss
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"
PROXIES_PER_CLASS = "centers"


class SoftTriple(nn.Module):
    """Softmax over classes, each the soft maximum of several centres.

    mean_a -log( e^(scale (S_ay - margin)) / (same + sum_(c != y) e^(scale S_ac)) ),
    S_ac = sum_k softmax_k(s_ack / temperature) s_ack

    Args:
        centers: K, proxies per class.
        scale: multiplies the class similarities (lambda in the paper).
        temperature: of the soft maximum over the centres of a class (gamma in the paper).
        margin: subtracted from the similarity to the sample's class (delta in the paper).
        tau: weight of `regularizer`, which draws the centres of a class together so that
            superfluous ones merge.

    PML's SoftTripleLoss has the same defaults, but no regulariser unless one is given.
    """

    def __init__(
        self,
        *,
        centers: int = 10,
        scale: Positive = 20.0,
        temperature: Positive = 0.1,
        margin: float = 0.01,
        tau: float = 0.2,
    ) -> None:
        super().__init__()
        self.centers = centers
        self.scale = scale
        self.temperature = temperature
        self.margin = margin
        self.tau = tau

    def forward(self, pairs: Pairs) -> Tensor:
        """Return the loss of the batch against K proxies per class.

        `pairs` [B, C x K] has the columns of a class side by side, with equal weights.
        """
        by_class = (len(pairs.sim), -1, self.centers)
        sim = pairs.sim.reshape(by_class)
        sim = ((sim / self.temperature).softmax(dim=2) * sim).sum(dim=2)  # [B, C]
        pos, neg = (weight.reshape(by_class)[:, :, 0] for weight in pairs[1:])
        classes = Pairs(sim, pos, neg)
        return softmax_loss(self.scale * sim, classes, margin=self.scale * self.margin).mean()

    def regularizer(self, proxies: Tensor) -> Tensor:
        """Return tau / 2 x the mean distance between the centres of a class, as in the paper.

        `proxies` [C x K, D]; the result is a scalar, 0 for one centre per class.
        """
        centers = F.normalize(proxies, dim=1).reshape(-1, self.centers, proxies.shape[1])
        first, second = torch.triu_indices(self.centers, self.centers, 1, device=proxies.device)
        dist = distance((centers[:, first] * centers[:, second]).sum(dim=2))  # [C, K (K - 1) / 2]
        return self.tau * dist.sum() / (2 * max(dist.numel(), 1))
