"""Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022."""

from typing import Literal

from mltool.mixups._mixup import Mixup
from mltool.settings import Positive


def input(  # noqa: A001 - the shell's name
    *,
    pairs: str = "pos-neg",
    negatives: Literal["hardest", "random"] = "hardest",
    per_anchor: int | None = 1,
    alpha: Positive = 2.0,
    draw: Literal["pair", "step"] = "pair",
    weight: Positive = 0.4,
) -> Mixup:
    """Mix two images pixel by pixel; the whole model embeds the mix.

    v = f(lambda x + (1 - lambda) x')

    A mixed example costs as much as an image: one for each anchor doubles the work of a step.
    """
    return Mixup("input", pairs, negatives, per_anchor, alpha, draw, weight)
