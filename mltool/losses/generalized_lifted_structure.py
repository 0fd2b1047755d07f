"""Hermans, Beyer, Leibe, In Defense of the Triplet Loss for Person Re-Identification, 2017."""

from torch import Tensor

from mltool.losses._pairs import Pairs, distance, log_sum_exp

ANCHORS = "batch"
CANDIDATES = "batch"


def generalized_lifted_structure(pairs: Pairs, *, margin: float = 1.0) -> Tensor:
    """Push the soft hardest negative of each anchor beyond its soft hardest positive.

    mean_a [ log sum_p e^(D_ap) + log sum_n e^(margin - D_an) ]+

    Args:
        pairs: [A, B].
        margin: Euclidean distance.

    An anchor needs a positive and a negative; PML's GeneralizedLiftedStructureLoss takes a missing
    side as 0.
    """
    dist = distance(pairs.sim)
    violation = log_sum_exp(dist, pairs.pos) + log_sum_exp(margin - dist, pairs.neg)
    return violation.relu().mean()  # a missing side is far below 0
