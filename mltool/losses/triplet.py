"""Schroff, Kalenichenko, Philbin, FaceNet: A Unified Embedding for Face Recognition, CVPR 2015."""

from typing import Literal

from torch import Tensor

from mltool.losses._pairs import Pairs, distance, mean_over

ANCHORS = "batch"
CANDIDATES = "batch"


def triplet(
    pairs: Pairs,
    *,
    margin: float = 0.2,
    form: Literal["squared", "distance", "similarity"] = "squared",
    mining: Literal["all", "hard", "semi-hard"] = "all",
    average: Literal["active", "anchors"] = "active",
) -> Tensor:
    """Push every negative farther from the anchor than every positive, by a margin.

    mean over triplets above zero of [D_ap^2 - D_an^2 + margin]+

    Args:
        pairs: [A, B]; a triplet weighs pos x neg.
        margin: in units of the form.
        form: `squared` as above; `distance` takes D instead of D^2; `similarity` has
            [s_an - s_ap + margin]+, half of `squared` with twice the margin.
        mining: `all` triplets; `hard`: the negative is not farther than the positive; `semi-hard`:
            it is, by less than the margin. Chosen exactly for each anchor and positive.
        average: `active` divides by the number of triplets above zero; `anchors` sums the triplets
            of an anchor and takes the mean over anchors.

    The work is A x P x B, P being the most positives that one anchor has. PML's TripletMarginLoss
    is `form=distance` with margin 0.05; its miner's `type_of_triplets` is `mining`.
    """
    if form == "squared":
        dist = 2 - 2 * pairs.sim
    else:
        dist = distance(pairs.sim) if form == "distance" else -pairs.sim
    most = int((pairs.pos > 0).sum(dim=1).max())
    weight_p, column = pairs.pos.topk(most, dim=1)  # [A, P], padded with weight zero
    excess = dist.gather(1, column)[:, :, None] - dist[:, None, :]  # D_ap - D_an, [A, P, B]
    hinge = (excess + margin).relu()
    if mining != "all":
        is_hard = excess >= 0
        hinge = hinge * (is_hard if mining == "hard" else ~is_hard)
    hinge = hinge * weight_p[:, :, None] * pairs.neg[:, None, :]
    return mean_over(hinge, hinge) if average == "active" else hinge.sum() / len(pairs.sim)
