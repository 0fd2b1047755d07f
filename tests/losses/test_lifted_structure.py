"""Lifted structure and its generalisation."""

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

from mltool.losses.generalized_lifted_structure import generalized_lifted_structure
from mltool.losses.lifted_structure import lifted_structure

SIM = cosines(DEGREES, DEGREES)


def push(anchor: int) -> float:
    return sum(math.exp(1.3 - apart(SIM[anchor][n])) for n in negatives(anchor))


def test_lifted_is_the_equation_over_unordered_pairs() -> None:
    total, count = 0.0, 0
    for i in range(len(DEGREES)):
        for j in (j for j in positives(i) if j > i):
            violation = math.log(push(i) + push(j)) + apart(SIM[i][j])
            total, count = total + max(violation, 0) ** 2, count + 1
    assert lifted_structure(square(), margin=1.3).item() == pytest.approx(total / (2 * count))


def test_generalized_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        if positives(a):
            pull = sum(math.exp(apart(SIM[a][p])) for p in positives(a))
            total += max(math.log(pull) + math.log(push(a)), 0)
    ours = generalized_lifted_structure(square(), margin=1.3)
    assert ours.item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize("margin", [1.0, -2.0])  # -2: some terms below zero
def test_both_are_pml(margin: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    pairs = square_of(vectors, labels)
    theirs = losses.LiftedStructureLoss(neg_margin=margin)(vectors, labels)
    assert_same(lifted_structure(pairs, margin=margin), theirs, vectors)
    theirs = losses.GeneralizedLiftedStructureLoss(neg_margin=margin)(vectors, labels)
    assert_same(generalized_lifted_structure(pairs, margin=margin), theirs, vectors)
