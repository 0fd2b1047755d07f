"""Hadsell, Chopra, LeCun, Dimensionality Reduction by Learning an Invariant Mapping, CVPR 2006."""

from typing import Literal

from torch import Tensor

from mltool.errors import UsageError
from mltool.losses._pairs import Pairs, distance, mean_over

ANCHORS = "batch"
CANDIDATES = "batch"


def contrastive(
    pairs: Pairs,
    *,
    margin: float = 0.5,
    form: Literal["similarity", "distance", "squared"] = "similarity",
    average: Literal["anchors", "active"] = "anchors",
) -> Tensor:
    """Pull positives without limit, push negatives up to a margin.

    mean_a ( sum_p -s_ap + sum_n [s_an - margin]+ )

    Args:
        pairs: [A, B].
        margin: a similarity, or a distance in the two distance forms (where a distance m acts on
            similarities above 1 - m^2 / 2; asymmetric metric learning takes 0.7, squared).
            Unrelated vectors lie near a distance of 1.41, the farthest at 2.
        form: `similarity` as above; `distance` has D_ap and [margin - D_an]+; `squared` has
            D_ap^2 / 2 and [margin - D_an]+^2 / 2, as published.
        average: `anchors` sums an anchor's terms and takes the mean over anchors; `active` is the
            mean over all positive terms plus the mean over the negative terms above zero.

    PML's ContrastiveLoss is `form=distance,average=active` with margin 1; with cosine similarity
    and a positive margin of 1 its value is larger by one for every positive term. Raises UsageError
    for a distance that no unit vectors have.
    """
    if form != "similarity" and margin > 2:
        raise UsageError(
            f"contrastive: no unit vectors are {margin:g} apart; take a margin of 2 at most"
        )
    if form == "similarity":
        pull, push = -pairs.sim, (pairs.sim - margin).relu()
    else:
        dist = distance(pairs.sim)
        pull, push = dist, (margin - dist).relu()
    if form == "squared":
        pull, push = pull.square() / 2, push.square() / 2
    pull, push = pairs.pos * pull, pairs.neg * push
    if average == "active":
        return mean_over(pull, pairs.pos) + mean_over(push, push)
    return (pull + push).sum(dim=1).mean()
