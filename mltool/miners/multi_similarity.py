"""Wang et al., Multi-Similarity Loss with General Pair Weighting, CVPR 2019."""

from mltool.losses import Pairs
from mltool.miners._rows import highest, lowest


def multi_similarity(pairs: Pairs, *, epsilon: float = 0.1) -> Pairs:
    """Keep negatives nearer than the farthest positive and the reverse, both up to a margin.

    keep n if s_an + epsilon > min_p s_ap; keep p if s_ap - epsilon < max_n s_an

    Args:
        pairs: [A, B].
        epsilon: the margin, in cosine similarity.

    A row without positives keeps no negatives and the other way round. PML's MultiSimilarityMiner
    is the same.
    """
    sim = pairs.sim.detach()
    return pairs._replace(
        pos=pairs.pos * (sim - epsilon < highest(sim, pairs.neg)),
        neg=pairs.neg * (sim + epsilon > lowest(sim, pairs.pos)),
    )
