"""Wang et al., CosFace: Large Margin Cosine Loss for Deep Face Recognition, CVPR 2018."""

from torch import Tensor

from mltool.losses._pairs import Pairs, softmax_loss
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"


def cosface(pairs: Pairs, *, margin: float = 0.35, scale: Positive = 64.0) -> Tensor:
    """Classify by the cosine to the proxies, with a cosine margin on the sample's class.

    mean_a -log( e^(scale (s_ay - margin)) / (same + sum_(c != y) e^(scale s_ac)) )

    Args:
        pairs: [B, C]: the batch against one proxy per class; its class's proxy is the positive.
        margin: subtracted from the cosine to the proxy of the sample's class.
        scale: multiplies the cosines.

    PML's CosFaceLoss has the same defaults.
    """
    return softmax_loss(scale * pairs.sim, pairs, margin=scale * margin).mean()
