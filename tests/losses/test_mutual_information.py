import math

import pytest
import torch
import torch.nn.functional as F
from loss_cases import random_batch

from mltool.losses.mutual_information import MutualInformation


def trained(smoothing: float = 0.1, classes: int = 6) -> MutualInformation:
    loss = MutualInformation(dim=16, classes=classes, smoothing=smoothing).double()
    generator = torch.Generator().manual_seed(4)
    loss.weight.data = torch.randn(classes, 16, generator=generator, dtype=torch.float64)
    loss.bias.data = torch.randn(classes, generator=generator, dtype=torch.float64)
    return loss


def test_is_the_equation() -> None:
    vectors, labels = random_batch()
    loss = trained()
    total = 0.0
    weight, bias = loss.weight.tolist(), loss.bias.tolist()
    for x, y in zip((3 * vectors).tolist(), labels.tolist(), strict=True):
        odds = [
            math.exp(sum(w * v for w, v in zip(row, x, strict=True)) + b)
            for row, b in zip(weight, bias, strict=True)
        ]
        for c, value in enumerate(odds):
            q = 0.9 if c == y else 0.1 / 5
            total += q * math.log(q / (value / sum(odds)))
    assert loss(3 * vectors, labels).item() == pytest.approx(total / len(labels))


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_is_torch_cross_entropy_less_the_entropy_of_the_target(smoothing: float) -> None:
    vectors, labels = random_batch()
    loss = trained(smoothing)
    logits = F.linear(vectors, loss.weight, loss.bias)
    expected = F.cross_entropy(logits, labels, label_smoothing=smoothing * 6 / 5)
    target = torch.tensor([1 - smoothing] + 5 * [smoothing / 5], dtype=torch.float64)
    entropy = -torch.xlogy(target, target).sum()
    torch.testing.assert_close(loss(vectors, labels), expected - entropy)


def test_starts_undecided_and_learns() -> None:
    vectors, labels = random_batch()
    loss = MutualInformation(dim=16, classes=6).double()
    optimizer = torch.optim.SGD(loss.parameters(), lr=5.0)
    start = loss(vectors, labels)
    for _ in range(50):
        optimizer.zero_grad()
        loss(vectors, labels).backward()
        optimizer.step()
    assert start.item() == pytest.approx(math.log(6) + 0.9 * math.log(0.9) + 0.1 * math.log(0.02))
    assert loss(vectors, labels) < start / 4


def test_unknown_labels_add_nothing() -> None:
    vectors, labels = random_batch()
    loss = trained()
    half = torch.where(torch.arange(24) < 12, labels, -1)
    torch.testing.assert_close(loss(vectors, half), loss(vectors[:12], labels[:12]) / 2)


def test_one_class_is_zero() -> None:
    vectors, labels = random_batch(classes=1)
    assert MutualInformation(dim=16, classes=1, smoothing=0.0).double()(vectors, labels) == 0
