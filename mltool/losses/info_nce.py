"""van den Oord, Li, Vinyals, Representation Learning with Contrastive Predictive Coding, 2018."""

import torch.nn.functional as F
from torch import Tensor

from mltool.losses._pairs import Pairs, log_sum_exp, row_mean
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def info_nce(pairs: Pairs, *, temperature: Positive = 0.07) -> Tensor:
    """Tell each positive from the anchor's negatives, the mean per anchor first.

    mean_a mean_p -log( e^(s_ap / T) / (e^(s_ap / T) + sum_n e^(s_an / T)) )

    Args:
        pairs: [A, B].
        temperature: T, divides the cosines.

    Other positives of the anchor are not in the denominator. `nt-xent` has the same term and
    averages over all pairs at once.
    """
    logits = pairs.sim / temperature
    negatives = log_sum_exp(logits, pairs.neg)[:, None]
    return row_mean(F.softplus(negatives - logits), pairs.pos).mean()
