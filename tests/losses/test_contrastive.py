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
from pytorch_metric_learning import distances, losses, reducers

from mltool.losses.contrastive import contrastive

SIM = cosines(DEGREES, DEGREES)


def test_similarity_form_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        total += sum(-SIM[a][p] for p in positives(a))
        total += sum(max(SIM[a][n] - 0.3, 0) for n in negatives(a))
    assert contrastive(square(), margin=0.3).item() == pytest.approx(total / len(DEGREES))


def test_squared_form_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        total += sum(apart(SIM[a][p]) ** 2 / 2 for p in positives(a))
        total += sum(max(0.7 - apart(SIM[a][n]), 0) ** 2 / 2 for n in negatives(a))
    ours = contrastive(square(), margin=0.7, form="squared")
    assert ours.item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize("margin", [0.5, 1.0, 1.5])
def test_active_distance_form_is_pml(margin: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    ours = contrastive(square_of(vectors, labels), margin=margin, form="distance", average="active")
    assert_same(ours, losses.ContrastiveLoss(neg_margin=margin)(vectors, labels), vectors)


def test_active_similarity_form_is_pml_less_one_for_each_positive() -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.ContrastiveLoss(1, 0.2, distance=distances.CosineSimilarity())(vectors, labels)
    ours = contrastive(square_of(vectors, labels), margin=0.2, average="active")
    assert_same(ours + 1, theirs, vectors)


def test_similarity_form_is_the_summed_pml() -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    pairs = square_of(vectors, labels)
    theirs = losses.ContrastiveLoss(
        1, 0.2, distance=distances.CosineSimilarity(), reducer=reducers.SumReducer()
    )(vectors, labels)
    ours = contrastive(pairs, margin=0.2) * len(labels) + pairs.pos.sum()
    assert_same(ours, theirs, vectors)


def test_weights_scale_the_loss() -> None:
    pairs = square()
    lighter = pairs._replace(pos=0.25 * pairs.pos, neg=0.25 * pairs.neg)
    for average in ("anchors", "active"):
        whole = contrastive(pairs, form="distance", average=average)
        assert torch.isclose(contrastive(lighter, form="distance", average=average), whole / 4)
