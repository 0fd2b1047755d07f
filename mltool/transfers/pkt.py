"""Passalis, Tefas, Learning Deep Representations with Probabilistic Knowledge ..., ECCV 2018."""

import torch.nn.functional as F
from torch import Tensor

from mltool.transfers._vectors import match_precision

INPUT = "unit"
NEEDS: set[str] = set()

_EPS = 1e-7  # as published


def pkt(student: Tensor, teacher: Tensor) -> Tensor:
    """Match the probabilities with which items choose each other as neighbours.

    mean_ij q_ij log( (q_ij + eps) / (p_ij + eps) ), p_ij = (1 + cos_ij) / sum_k (1 + cos_ik),
    q_ij = the same for the teacher

    Args:
        student: [n, D_s], of any length.
        teacher: [n, D_t], likewise.

    An item may choose itself. The mean is over n^2 entries, as published: the value is n times
    smaller than the mean divergence, and gradients are small; `weight=` makes up for it.
    """
    student, teacher = match_precision(student, teacher)
    p, q = _probabilities(student), _probabilities(teacher)
    return (q * ((q + _EPS) / (p + _EPS)).log()).mean()


def _probabilities(vectors: Tensor) -> Tensor:
    """Return how likely each row chooses each other one, [n, D] -> [n, n], rows of sum 1."""
    units = F.normalize(vectors)
    shares = (1 + units @ units.T).clamp(min=0)  # rounding may leave a cosine below -1
    return shares / shares.sum(dim=1, keepdim=True)
