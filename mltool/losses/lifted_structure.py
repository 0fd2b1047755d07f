"""Song et al., Deep Metric Learning via Lifted Structured Feature Embedding, CVPR 2016."""

import torch
from torch import Tensor

from mltool.losses._pairs import Pairs, distance, log_sum_exp, mean_over

ANCHORS = "batch"
CANDIDATES = "batch"
SQUARE = True


def lifted_structure(pairs: Pairs, *, margin: float = 1.0) -> Tensor:
    """Compare each positive pair with the negatives of both of its ends.

    mean_(i, j positive) [J_ij]+^2 / 2,
    J_ij = D_ij + log( sum_(k neg. of i) e^(margin - D_ik) + sum_(l neg. of j) e^(margin - D_jl) )

    Args:
        pairs: [A, A], the batch against itself.
        margin: Euclidean distance.

    The vectors have unit length, those of the paper do not. PML's LiftedStructureLoss is the same.
    """
    dist = distance(pairs.sim)
    negatives = log_sum_exp(margin - dist, pairs.neg)
    violation = torch.logaddexp(negatives[:, None], negatives[None, :]) + dist
    return mean_over(pairs.pos * violation.relu().square() / 2, pairs.pos)
