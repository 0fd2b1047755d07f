"""Yi, Lei, Liao, Li, Deep Metric Learning for Person Re-Identification, ICPR 2014."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mltool.losses._pairs import Pairs, log_one_plus_sum_exp, row_mean
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def binomial_deviance(
    pairs: Pairs,
    *,
    alpha: Positive = 2.0,
    beta: Positive = 40.0,
    base: float = 0.5,
    form: Literal["pairs", "set"] = "pairs",
) -> Tensor:
    """Pull and push each pair by a logistic loss, softer for positives than for negatives.

    mean_a ( mean_p log(1 + e^(-alpha (s_ap - base))) + mean_n log(1 + e^(beta (s_an - base))) )

    Args:
        pairs: [A, B].
        alpha: sharpness of the pull.
        beta: sharpness of the push. The paper has 2 on both sides and a cost of 25 on negatives;
            2 and 40 are what later work compares with.
        base: similarity at the boundary.
        form: `pairs` as above; `set` has log(1 + sum e^...) on both sides, as the generic loss of
            Metrix reads it: alpha and beta times the two parts of multi-similarity.

    PML has no such loss.
    """
    pull, push = -alpha * (pairs.sim - base), beta * (pairs.sim - base)
    if form == "set":
        terms = log_one_plus_sum_exp(pull, pairs.pos) + log_one_plus_sum_exp(push, pairs.neg)
    else:
        terms = row_mean(F.softplus(pull), pairs.pos) + row_mean(F.softplus(push), pairs.neg)
    return terms.mean()
