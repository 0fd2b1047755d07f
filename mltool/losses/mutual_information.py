"""Boudiaf et al., A Unifying Mutual Information View of Metric Learning, ECCV 2020."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

INPUT = "vectors"


class MutualInformation(nn.Module):
    """Cross-entropy of a linear classifier with smoothed labels; a bound on the pairwise losses.

    mean_i sum_c q_ic log(q_ic / softmax_c(W x_i + b)), q = 1 - smoothing for the class of i, else
    smoothing / (C - 1)

    Args:
        dim: D, length of the vectors.
        classes: C.
        smoothing: probability given to the other classes.

    The classifier starts at zero. The vectors are not normalised in training; retrieval goes by
    their cosine.
    """

    def __init__(self, *, dim: int, classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        self.smoothing = smoothing
        self.weight = nn.Parameter(torch.zeros(classes, dim))
        self.bias = nn.Parameter(torch.zeros(classes))

    def forward(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of vectors [N, D], class indices [N]; an unknown class, -1, adds 0."""
        logits = F.linear(vectors.to(self.weight.dtype), self.weight, self.bias)
        target = torch.full_like(logits, self.smoothing / max(len(self.bias) - 1, 1))
        target.scatter_(1, labels.clamp(min=0)[:, None], 1 - self.smoothing)
        target = target * (labels >= 0)[:, None]
        return F.kl_div(logits.log_softmax(dim=1), target, reduction="sum") / len(logits)
