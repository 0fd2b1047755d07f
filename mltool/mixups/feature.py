"""Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022."""

from typing import Literal

from mltool.mixups._mixup import Mixup
from mltool.settings import Positive


def feature(
    *,
    stage: str = "last",
    pairs: str = "pos-neg",
    negatives: Literal["hardest", "random"] = "hardest",
    per_anchor: int | None = 4,
    alpha: Positive = 2.0,
    draw: Literal["pair", "step"] = "pair",
    weight: Positive = 0.4,
) -> Mixup:
    """Mix two feature maps at a stage of the backbone; the rest of the model embeds the mix.

    v = f_m(lambda g_m(x) + (1 - lambda) g_m(x')), f = f_m after g_m

    `stage` is `last`, before the pooling, or a stage of the timm network (`layer3`, `blocks.4`). A
    mixed example costs what the layers after the stage cost. With average pooling and a linear
    projection `last` is the mix of the embeddings before they are normalised.
    """
    return Mixup(stage, pairs, negatives, per_anchor, alpha, draw, weight)
