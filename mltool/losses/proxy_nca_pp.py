"""Teh, DeVries, Taylor, ProxyNCA++: Revisiting and Revitalizing Proxy NCA, ECCV 2020."""

from torch import Tensor

from mltool.losses._pairs import Pairs, softmax_loss
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"


def proxy_nca_pp(pairs: Pairs, *, scale: Positive = 9.0) -> Tensor:
    """Maximise the chance of the sample's proxy among all proxies, by squared distance.

    mean_a -log( e^(-scale D_ay^2) / sum_c e^(-scale D_ac^2) )

    Args:
        pairs: [B, C]: the batch against one proxy per class; its class's proxy is the positive.
        scale: multiplies the squared distances; the paper's temperature is its inverse, 1/9.

    Equal to cross-entropy over 18 s. PML's ProxyNCALoss is the same with scale 1.
    """
    logits = 2 * scale * pairs.sim
    return softmax_loss(logits, pairs).mean()
