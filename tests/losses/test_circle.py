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

from mltool.losses.circle import circle

SIM = cosines(DEGREES, DEGREES)


def test_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        pull = push = 0.0
        for s in (SIM[a][p] for p in positives(a)):
            pull += math.exp(-8 * max(1.25 - s, 0) * (s - 0.75))
        for s in (SIM[a][n] for n in negatives(a)):
            push += math.exp(8 * max(s + 0.25, 0) * (s - 0.25))
        total += math.log(1 + pull * push) if positives(a) else 0.0
    assert circle(square(), margin=0.25, scale=8).item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize(("margin", "scale"), [(0.4, 80.0), (0.25, 256.0)])
def test_is_pml(margin: float, scale: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.CircleLoss(m=margin, gamma=scale)(vectors, labels)
    assert_same(circle(square_of(vectors, labels), margin=margin, scale=scale), theirs, vectors)
