"""Wang et al., Multi-Similarity Loss with General Pair Weighting, CVPR 2019."""

from torch import Tensor

from mltool.losses._pairs import Pairs, log_one_plus_sum_exp
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def multi_similarity(
    pairs: Pairs, *, alpha: Positive = 2.0, beta: Positive = 50.0, base: float = 0.5
) -> Tensor:
    """Pull the soft hardest positive and push the soft hardest negative of each anchor.

    mean_a ( log(1 + sum_p e^(-alpha (s_ap - base))) / alpha
    + log(1 + sum_n e^(beta (s_an - base))) / beta )

    Args:
        pairs: [A, B]; the paper mines them by the miner of the same name.
        alpha: sharpness of the pull.
        beta: sharpness of the push (50 in the paper and in PML; the authors' code has 40).
        base: similarity at which a pair counts as much as the 1.
    """
    pull = log_one_plus_sum_exp(-alpha * (pairs.sim - base), pairs.pos) / alpha
    push = log_one_plus_sum_exp(beta * (pairs.sim - base), pairs.neg) / beta
    return (pull + push).mean()
