import pytest
import torch
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

from mltool.losses import Pairs
from mltool.losses.fastap import fastap

SIM = cosines(DEGREES, DEGREES)


@pytest.mark.parametrize("bins", [1, 4, 10])
def test_is_the_equation(bins: int) -> None:
    width, total = 4 / bins, 0.0

    def height(sim: float, edge: int) -> float:
        return max(0.0, 1 - abs(2 - 2 * sim - edge * width) / width)

    for a in range(len(DEGREES)):
        found = seen = precision = 0.0
        for edge in range(bins + 1):
            here = sum(height(SIM[a][p], edge) for p in positives(a))
            found += here
            seen += here + sum(height(SIM[a][n], edge) for n in negatives(a))
            precision += here * found / seen if seen else 0.0
        total += 1 - precision / len(positives(a)) if positives(a) else 0.0
    assert fastap(square(), bins=bins).item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize("bins", [10, 27])
def test_is_pml(bins: int) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.FastAPLoss(num_bins=bins)(vectors, labels)
    assert_same(fastap(square_of(vectors, labels), bins=bins), theirs, vectors)


def test_perfect_and_worst_ranking() -> None:
    pos = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    sim = torch.tensor([[0.8, 0.8, -0.4, -0.8, -0.8]])
    assert fastap(Pairs(sim, pos, 1 - pos)) == 0
    # two positives at the end of five: (1/2) (2 x 2/5)
    assert fastap(Pairs(-sim, pos, 1 - pos)).item() == pytest.approx(1 - 2 / 5)
