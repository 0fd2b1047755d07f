import pytest
import torch
from loss_cases import (
    DEGREES,
    apart,
    assert_same,
    cosines,
    negatives,
    positives,
    random_batch,
    square,
    square_of,
)
from pytorch_metric_learning import losses, miners

from mltool.losses.triplet import triplet

SIM = cosines(DEGREES, DEGREES)


@pytest.mark.parametrize("mining", ["all", "hard", "semi-hard"])
def test_is_the_equation(mining: str) -> None:
    terms = []
    for a in range(len(DEGREES)):
        for p in positives(a):
            for n in negatives(a):
                gap = apart(SIM[a][p]) ** 2 - apart(SIM[a][n]) ** 2
                wanted = {"all": True, "hard": gap >= 0, "semi-hard": gap < 0}[mining]
                if wanted and gap + 0.9 > 0:
                    terms.append(gap + 0.9)
    ours = triplet(square(), margin=0.9, mining=mining)
    assert ours.item() == pytest.approx(sum(terms) / len(terms))
    summed = triplet(square(), margin=0.9, mining=mining, average="anchors")
    assert summed.item() == pytest.approx(sum(terms) / len(DEGREES))


def test_similarity_form_is_half_of_squared_with_twice_the_margin() -> None:
    half = triplet(square(), margin=0.3, form="similarity")
    assert half.item() == pytest.approx(triplet(square(), margin=0.6).item() / 2)


@pytest.mark.parametrize(("mining", "kind"), [("hard", "hard"), ("semi-hard", "semihard")])
def test_mined_distance_form_is_pml(mining: str, kind: str) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    mined = miners.TripletMarginMiner(margin=0.2, type_of_triplets=kind)(vectors, labels)
    theirs = losses.TripletMarginLoss(margin=0.2)(vectors, labels, mined)
    pairs = square_of(vectors, labels)
    assert_same(triplet(pairs, form="distance", mining=mining), theirs, vectors)


@pytest.mark.parametrize("margin", [0.05, 0.2])
def test_distance_form_is_pml(margin: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.TripletMarginLoss(margin=margin)(vectors, labels)
    assert_same(
        triplet(square_of(vectors, labels), margin=margin, form="distance"), theirs, vectors
    )


def test_a_triplet_weighs_positive_times_negative() -> None:
    pairs = square()
    heavy = pairs._replace(pos=0.5 * pairs.pos, neg=3 * pairs.neg)
    assert torch.isclose(triplet(heavy), 1.5 * triplet(pairs))
