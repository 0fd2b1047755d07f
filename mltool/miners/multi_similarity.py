"""Wang et al., Multi-Similarity Loss with General Pair Weighting, CVPR 2019."""

from mltool.losses import Pairs
from mltool.miners._rows import highest, lowest


def multi_similarity(pairs: Pairs, *, epsilon: float = 0.1) -> Pairs:
    """Pairs that the other side of the same anchor reaches or nearly reaches.

    keep n if s_an + epsilon > min_p s_ap; keep p if s_ap - epsilon < max_n s_an

    A row without positives keeps no negatives and the other way round. PML's MultiSimilarityMiner
    is the same.
    """
    sim = pairs.sim.detach()
    return pairs._replace(
        pos=pairs.pos * (sim - epsilon < highest(sim, pairs.neg)),
        neg=pairs.neg * (sim + epsilon > lowest(sim, pairs.pos)),
    )
