"""Zhai, Wu, Classification is a Strong Baseline for Deep Metric Learning, BMVC 2019."""

from torch import Tensor

from mltool.losses._pairs import Pairs, softmax_loss
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"


def normalized_softmax(pairs: Pairs, *, temperature: Positive = 0.05) -> Tensor:
    """Classify by the cosine to one proxy per class.

    mean_a -log( e^(s_ay / T) / sum_c e^(s_ac / T) )

    Args:
        pairs: [B, C]: the batch against one proxy per class; its class's proxy is the positive.
        temperature: T, divides the cosines.

    PML's NormalizedSoftmaxLoss has the same default.
    """
    logits = pairs.sim / temperature
    return softmax_loss(logits, pairs).mean()
