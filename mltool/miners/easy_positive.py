"""Xuan, Stylianou, Pless, Improved Embeddings with Easy Positive Triplet Mining, WACV 2020."""

from typing import Literal

from mltool.losses import Pairs
from mltool.miners._rows import highest


def easy_positive(
    pairs: Pairs, *, negatives: Literal["semi-hard", "hard", "all"] = "semi-hard"
) -> Pairs:
    """Keep the positive that is nearest already, with one negative or all.

    keep p if s_ap = max_p s_ap; keep n if s_an = max over the s_an < s_ap

    Args:
        pairs: [A, B].
        negatives: `semi-hard`: the hardest one beyond the kept positive; `hard`: the hardest one;
            `all` of them.

    Exact ties are all kept. Under `semi-hard` an anchor without positives keeps no negatives. PML's
    BatchEasyHardMiner with its defaults is the same, less the anchors where one side is missing.
    """
    sim = pairs.sim.detach()
    easiest = highest(sim, pairs.pos)
    neg = pairs.neg
    if negatives == "semi-hard":
        neg = neg * (sim < easiest)
    if negatives != "all":
        neg = neg * (sim == highest(sim, neg))
    return pairs._replace(pos=pairs.pos * (sim == easiest), neg=neg)
