"""Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022."""

from typing import Literal

from mltool.mixups._mixup import Mixup
from mltool.settings import Positive


def embedding(
    *,
    pairs: str = "pos-neg",
    negatives: Literal["hardest", "random"] = "hardest",
    per_anchor: int | None = 16,
    alpha: Positive = 2.0,
    draw: Literal["pair", "step"] = "pair",
    weight: Positive = 0.4,
) -> Mixup:
    """Mix two embeddings of unit length and renormalise the mix.

    v = lambda z + (1 - lambda) z' over its length, z = f(x)

    Where the candidates of a loss are proxies, these are mixed. It costs next to nothing: the
    similarity of an anchor to a mix follows from those to the two and between them.
    """
    return Mixup(None, pairs, negatives, per_anchor, alpha, draw, weight)
