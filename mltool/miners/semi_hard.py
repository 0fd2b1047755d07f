"""Schroff, Kalenichenko, Philbin, FaceNet: A Unified Embedding for Face Recognition, CVPR 2015."""

from mltool.losses import Pairs, distance
from mltool.miners._rows import lowest


def semi_hard(pairs: Pairs, *, margin: float = 0.2) -> Pairs:
    """Keep negatives beyond the anchor's hardest positive, by no more than the margin.

    keep n if D < D_an <= D + margin, with D = max_p D_ap; all positives are kept

    Args:
        pairs: [A, B].
        margin: in Euclidean distance (the paper squares it).

    A row without positives keeps no negatives. There is one band per anchor; for one per anchor and
    positive, as in PML's TripletMarginMiner, use the triplet loss with `mining=semi-hard`.
    """
    sim = pairs.sim.detach()
    hardest = lowest(sim, pairs.pos)
    inside = (sim < hardest) & (distance(sim) <= distance(hardest) + margin)
    inside &= hardest.isfinite()
    return pairs._replace(neg=pairs.neg * inside)
