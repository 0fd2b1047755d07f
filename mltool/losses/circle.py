"""Sun et al., Circle Loss: A Unified Perspective of Pair Similarity Optimization, CVPR 2020."""

import torch.nn.functional as F
from torch import Tensor

from mltool.losses._pairs import Pairs, log_sum_exp
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def circle(pairs: Pairs, *, margin: float = 0.4, scale: Positive = 80.0) -> Tensor:
    """Push every negative below every positive, each pair paced by its distance from its goal.

    mean_a log(1 + sum_n e^(scale [s_an + margin]+ (s_an - margin))
    sum_p e^(-scale [1 + margin - s_ap]+ (s_ap - 1 + margin)))

    Args:
        pairs: [A, B].
        margin: relaxation of both goals (0.4 for fine-grained retrieval, 0.25 for faces).
        scale: 80 for fine-grained retrieval, 256 for faces.

    The brackets are paces and carry no gradient, so the gradient is not that of the value. An
    anchor needs a positive and a negative. PML's CircleLoss averages over the terms above zero.
    """
    sim, fixed = pairs.sim, pairs.sim.detach()
    pull = -scale * (1 + margin - fixed).relu() * (sim - 1 + margin)
    push = scale * (fixed + margin).relu() * (sim - margin)
    gap = log_sum_exp(pull, pairs.pos) + log_sum_exp(push, pairs.neg)
    return F.softplus(gap).mean()  # 0 where a side is missing
