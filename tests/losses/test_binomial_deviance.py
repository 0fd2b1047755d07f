import math

import pytest
import torch
from loss_cases import DEGREES, cosines, negatives, positives, random_batch, square, square_of
from pytorch_metric_learning import losses

from mltool.losses.binomial_deviance import binomial_deviance

SIM = cosines(DEGREES, DEGREES)


def mean(terms: list[float]) -> float:
    return sum(terms) / len(terms) if terms else 0.0


def test_pairs_form_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        total += mean([math.log(1 + math.exp(-2 * (SIM[a][p] - 0.5))) for p in positives(a)])
        total += mean([math.log(1 + math.exp(40 * (SIM[a][n] - 0.5))) for n in negatives(a)])
    assert binomial_deviance(square()).item() == pytest.approx(total / len(DEGREES))


def test_set_form_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        total += math.log(1 + sum(math.exp(-3 * (SIM[a][p] - 0.7)) for p in positives(a)))
        total += math.log(1 + sum(math.exp(9 * (SIM[a][n] - 0.7)) for n in negatives(a)))
    ours = binomial_deviance(square(), alpha=3, beta=9, base=0.7, form="set")
    assert ours.item() == pytest.approx(total / len(DEGREES))


def test_set_form_is_the_two_parts_of_multi_similarity() -> None:
    vectors, labels = random_batch()
    pairs = square_of(vectors, labels)
    everyone = losses.MultiSimilarityLoss(2, 40, 0.5)(vectors, labels)
    push = binomial_deviance(pairs._replace(pos=torch.zeros_like(pairs.pos)), form="set")
    pull = binomial_deviance(pairs._replace(neg=torch.zeros_like(pairs.neg)), form="set")
    torch.testing.assert_close(pull / 2 + push / 40, everyone)


def test_weights_scale_the_pairs() -> None:
    pairs = square()
    lighter = pairs._replace(pos=pairs.pos / 4, neg=pairs.neg / 4)
    assert torch.isclose(binomial_deviance(lighter), binomial_deviance(pairs) / 4)
