"""Movshovitz-Attias et al., No Fuss Distance Metric Learning Using Proxies, ICCV 2017."""

import torch
from torch import Tensor

from mltool.losses._pairs import Pairs, has_any, log_odds
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"


def proxy_nca(pairs: Pairs, *, scale: Positive = 1.0) -> Tensor:
    """Apply NCA to one proxy per class, the proxy of the sample's class not in the denominator.

    mean_a -log( e^(-scale D_ay^2) / sum_(c != y) e^(-scale D_ac^2) )

    Args:
        pairs: [B, C]: the batch against one proxy per class; its class's proxy is the positive.
        scale: multiplies the squared distances (1 in the paper; tuned values lie near 10).

    The value can be negative. PML's ProxyNCALoss has the positive in the denominator as well: that
    is `proxy-nca-pp`.
    """
    odds = log_odds(2 * scale * pairs.sim, pairs)
    return torch.where(has_any(pairs.pos) & has_any(pairs.neg), odds, 0).mean()
