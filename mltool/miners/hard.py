"""Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification, 2017."""

from mltool.losses import Pairs
from mltool.miners._rows import highest, lowest


def hard(pairs: Pairs) -> Pairs:
    """Keep the hardest positive and the hardest negative of each anchor.

    keep p if s_ap = min_p s_ap; keep n if s_an = max_n s_an

    Exact ties are all kept, so the order of the rows decides nothing. An anchor without positives
    keeps its hardest negative and the other way round (PML's BatchHardMiner drops such anchors).
    """
    sim = pairs.sim.detach()
    return pairs._replace(
        pos=pairs.pos * (sim == lowest(sim, pairs.pos)),
        neg=pairs.neg * (sim == highest(sim, pairs.neg)),
    )
