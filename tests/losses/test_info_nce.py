"""InfoNCE and NT-Xent: one term, two averages."""

import math

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
from mltool.losses.info_nce import info_nce
from mltool.losses.nt_xent import nt_xent

SIM = cosines(DEGREES, DEGREES)


def terms(anchor: int, temperature: float) -> list[float]:
    rest = sum(math.exp(SIM[anchor][n] / temperature) for n in negatives(anchor))
    own = [math.exp(SIM[anchor][p] / temperature) for p in positives(anchor)]
    return [-math.log(value / (value + rest)) for value in own]


def test_info_nce_is_the_equation() -> None:
    rows = [terms(a, 0.3) for a in range(len(DEGREES))]
    expected = sum(sum(row) / len(row) for row in rows if row) / len(rows)
    assert info_nce(square(), temperature=0.3).item() == pytest.approx(expected)


def test_nt_xent_is_the_equation() -> None:
    flat = [term for a in range(len(DEGREES)) for term in terms(a, 0.3)]
    assert nt_xent(square(), temperature=0.3).item() == pytest.approx(sum(flat) / len(flat))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_nt_xent_is_pml(temperature: float) -> None:
    vectors, labels = random_batch(rows=25)
    vectors.requires_grad_()
    theirs = losses.NTXentLoss(temperature)(vectors, labels)
    assert_same(nt_xent(square_of(vectors, labels), temperature=temperature), theirs, vectors)


def test_both_are_cross_entropy_for_two_views_of_each_image() -> None:
    student, _ = random_batch()
    teacher, _ = random_batch(seed=3)
    sim = student @ teacher.T
    own = torch.eye(len(sim), dtype=torch.float64)
    expected = torch.nn.functional.cross_entropy(sim / 0.07, torch.arange(len(sim)))
    for loss in (info_nce, nt_xent):
        ours = loss(Pairs(sim, own, 1 - own), temperature=0.07)
        torch.testing.assert_close(ours, expected)
