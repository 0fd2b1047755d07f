"""Chen, Kornblith, Norouzi, Hinton, A Simple Framework for Contrastive Learning, ICML 2020."""

import torch.nn.functional as F
from torch import Tensor

from mltool.losses._pairs import Pairs, log_sum_exp, mean_over
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def nt_xent(pairs: Pairs, *, temperature: Positive = 0.1) -> Tensor:
    """Tell each positive from the anchor's negatives, the mean over all positive pairs at once.

    mean_(a, p) -log( e^(s_ap / T) / (e^(s_ap / T) + sum_n e^(s_an / T)) )

    Args:
        pairs: [A, B].
        temperature: T, divides the cosines (0.07 in PML).

    The mean is over positive pairs, so an anchor with many counts more; `info-nce` counts every
    anchor once. Other positives are not in the denominator, as in PML's NTXentLoss.
    """
    logits = pairs.sim / temperature
    negatives = log_sum_exp(logits, pairs.neg)[:, None]
    return mean_over(pairs.pos * F.softplus(negatives - logits), pairs.pos)
