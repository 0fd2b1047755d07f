import math

import pytest
import torch
from loss_cases import DEGREES, LABELS, assert_same, cosines, random_batch, random_proxies, unit
from pytorch_metric_learning import losses, regularizers

from mltool.losses import pairs_from_labels
from mltool.losses.normalized_softmax import normalized_softmax
from mltool.losses.soft_triple import SoftTriple

CENTERS = (10.0, 40.0, 85.0, 120.0, 175.0, 230.0, 290.0, 330.0)  # two for each class, adjacent


def test_is_the_equation() -> None:
    sim = cosines(DEGREES, CENTERS)
    total = 0.0
    for a, label in enumerate(LABELS):
        logits = []
        for c in range(4):
            near = sim[a][2 * c : 2 * c + 2]
            shares = [math.exp(s / 0.1) for s in near]
            soft = sum(w * s for w, s in zip(shares, near, strict=True)) / sum(shares)
            logits.append(20 * (soft - (0.01 if c == label else 0)))
        total -= math.log(math.exp(logits[label]) / sum(math.exp(z) for z in logits))
    classes = torch.arange(4).repeat_interleave(2)
    pairs = pairs_from_labels(unit(DEGREES) @ unit(CENTERS).T, torch.tensor(LABELS), classes)
    assert SoftTriple(centers=2)(pairs).item() == pytest.approx(total / len(LABELS))


def test_regularizer_is_the_equation() -> None:
    sim = cosines(CENTERS, CENTERS)
    apart = [math.sqrt(2 - 2 * sim[2 * c][2 * c + 1]) for c in range(4)]
    ours = SoftTriple(centers=2).regularizer(3 * unit(CENTERS))
    assert ours.item() == pytest.approx(0.2 * sum(apart) / (4 * 2 * 1))


def test_is_pml_with_its_regularizer() -> None:
    vectors, labels = random_batch()
    proxies = random_proxies(60).requires_grad_()
    vectors.requires_grad_()
    theirs = losses.SoftTripleLoss(
        6,
        16,
        weight_regularizer=regularizers.SparseCentersRegularizer(6, 10),
        weight_reg_weight=0.2,
    ).double()
    theirs.fc.data = proxies.detach().T.clone()
    loss = SoftTriple()
    pairs = pairs_from_labels(vectors @ proxies.T, labels, torch.arange(6).repeat_interleave(10))
    ours = loss(pairs) + loss.regularizer(proxies)
    expected = theirs(vectors, labels)
    # PML holds the squared distances above 1e-5
    torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-5)
    theirs.weight_reg_weight = 0.0
    assert_same(loss(pairs), theirs(vectors, labels), vectors)


def test_one_center_without_margin_is_normalized_softmax() -> None:
    vectors, labels = random_batch()
    pairs = pairs_from_labels(vectors @ random_proxies().T, labels, torch.arange(6))
    loss = SoftTriple(centers=1, margin=0.0)
    torch.testing.assert_close(loss(pairs), normalized_softmax(pairs))
    assert loss.regularizer(random_proxies()) == 0


def test_equal_centers_are_a_finite_minimum_of_the_regularizer() -> None:
    proxies = torch.ones(6, 4, requires_grad=True)
    SoftTriple(centers=3).regularizer(proxies).backward()
    assert proxies.grad is not None
    assert proxies.grad.isfinite().all()
