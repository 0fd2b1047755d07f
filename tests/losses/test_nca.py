import math

import pytest
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
from pytorch_metric_learning import losses

from mltool.losses.nca import nca

SIM = cosines(DEGREES, DEGREES)


def test_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        near = sum(math.exp(-1.5 * apart(SIM[a][p]) ** 2) for p in positives(a))
        far = sum(math.exp(-1.5 * apart(SIM[a][n]) ** 2) for n in negatives(a))
        total -= math.log(near / (near + far)) if near else 0.0
    assert nca(square(), scale=1.5).item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize("scale", [1.0, 12.0])
def test_is_pml(scale: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.NCALoss(softmax_scale=scale)(vectors, labels)
    assert_same(nca(square_of(vectors, labels), scale=scale), theirs, vectors)
