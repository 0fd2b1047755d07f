"""Deng et al., ArcFace: Additive Angular Margin Loss for Deep Face Recognition, CVPR 2019."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.losses._pairs import Pairs, has_any, log_sum_exp, root
from mltool.settings import Positive

ANCHORS = "batch"
CANDIDATES = "proxies"


def arcface(pairs: Pairs, *, margin: float = 0.5, scale: Positive = 64.0) -> Tensor:
    """Classify by the cosine to the proxies, with an angular margin on the sample's class.

    mean_a -log( e^(scale cos(t_ay + margin)) / (same + sum_(c != y) e^(scale cos t_ac)) )

    Args:
        pairs: [B, C]: the batch against one proxy per class; its class's proxy is the positive.
        margin: in radians (PML takes degrees: its default 28.6 is 0.499).
        scale: multiplies the cosines.

    Beyond t = pi - margin, where cos(t + margin) would rise again, the logit goes on as
    cos t - margin sin(margin), as in PML. cos(t + margin) is expanded: the arc cosine has an
    infinite slope at 1.
    """
    positives = pairs.pos.nonzero(as_tuple=True)
    cos = pairs.sim[positives]  # the margin changes these alone
    shifted = cos * math.cos(margin) - root(1 - cos.square()) * math.sin(margin)
    monotone = cos - margin * math.sin(margin)
    target = torch.where(cos > -math.cos(margin), shifted, monotone)
    logits = scale * pairs.sim
    positive_logits = log_sum_exp(logits.index_put(positives, scale * target), pairs.pos)
    odds = log_sum_exp(logits, pairs.neg) - positive_logits
    return torch.where(has_any(pairs.pos), F.softplus(odds), 0).mean()
