"""Khosla et al., Supervised Contrastive Learning, NeurIPS 2020."""

from torch import Tensor

from mltool.losses._pairs import Pairs, log_sum_exp, row_mean
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "batch"


def supcon(pairs: Pairs, *, temperature: Positive = 0.1) -> Tensor:
    """Tell every positive from all other samples, the other positives included.

    mean_a mean_p -log( e^(s_ap / T) / sum_(p, n) e^(s / T) )

    Args:
        pairs: [A, B].
        temperature: T, divides the cosines.

    The mean over positives stands outside the logarithm. An anchor without positives adds 0; PML's
    SupConLoss leaves it out of the mean, and the authors' code multiplies by T / 0.07.
    """
    logits = pairs.sim / temperature
    everyone = log_sum_exp(logits, pairs.pos + pairs.neg)[:, None]
    return row_mean(everyone - logits, pairs.pos).mean()
