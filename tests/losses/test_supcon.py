import math

import pytest
from loss_cases import (
    DEGREES,
    assert_same,
    cosines,
    negatives,
    positives,
    random_batch,
    square,
    square_of,
)
from pytorch_metric_learning import losses

from mltool.losses.supcon import supcon

SIM = cosines(DEGREES, DEGREES)


def test_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        everyone = sum(math.exp(SIM[a][k] / 0.4) for k in positives(a) + negatives(a))
        terms = [-math.log(math.exp(SIM[a][p] / 0.4) / everyone) for p in positives(a)]
        total += sum(terms) / len(terms) if terms else 0.0
    assert supcon(square(), temperature=0.4).item() == pytest.approx(total / len(DEGREES))


def test_is_pml() -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    assert_same(supcon(square_of(vectors, labels)), losses.SupConLoss()(vectors, labels), vectors)


def test_an_anchor_without_positives_counts_in_the_mean() -> None:
    vectors, labels = random_batch()
    labels[0] = 99
    ours = supcon(square_of(vectors, labels))
    theirs = losses.SupConLoss()(vectors, labels)  # leaves it out
    assert ours.item() == pytest.approx(theirs.item() * 23 / 24)
