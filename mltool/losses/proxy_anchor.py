"""Kim et al., Proxy Anchor Loss for Deep Metric Learning, CVPR 2020."""

from typing import Literal

from torch import Tensor

from mltool.losses._pairs import Pairs, has_any, log_one_plus_sum_exp, mean_over
from mltool.settings import Positive

ANCHORS = "proxies"
CANDIDATES = "batch"


def proxy_anchor(
    pairs: Pairs,
    *,
    margin: float = 0.1,
    alpha: Positive = 32.0,
    average: Literal["present", "all"] = "present",
) -> Tensor:
    """Pull each proxy's class near and push all other samples of the batch away.

    mean_present log(1 + sum_p e^(-alpha (s_ap - margin)))
    + mean_all log(1 + sum_n e^(alpha (s_an + margin)))

    Args:
        pairs: [C, B]: one proxy per class against the batch; a sample is positive for its class's
            proxy and negative for all others.
        margin: added to the wanted gap on both sides.
        alpha: sharpness.
        average: normaliser of the pull: `present` = proxies with a positive in the batch, as
            published; `all` = all proxies, as for any other anchor. The push has all proxies.

    As published there is no factor 1 / alpha. PML's ProxyAnchorLoss has the same defaults.
    """
    pull = log_one_plus_sum_exp(-alpha * (pairs.sim - margin), pairs.pos)
    push = log_one_plus_sum_exp(alpha * (pairs.sim + margin), pairs.neg)
    pulled = mean_over(pull, has_any(pairs.pos)) if average == "present" else pull.mean()
    return pulled + push.mean()
