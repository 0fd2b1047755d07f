import math

import pytest
import torch
from loss_cases import (
    DEGREES,
    LABELS,
    PROXY_DEGREES,
    assert_same,
    cosines,
    random_batch,
    random_proxies,
    unit,
)
from pytorch_metric_learning import losses
from torch import Tensor

from mltool.losses import Pairs, pairs_from_labels
from mltool.losses.proxy_anchor import proxy_anchor


def on_anchors(vectors: Tensor, labels: Tensor, proxies: Tensor) -> Pairs:
    return pairs_from_labels(proxies @ vectors.T, torch.arange(len(proxies)), labels)


@pytest.mark.parametrize("average", ["present", "all"])
@pytest.mark.parametrize("count", [8, 5])  # the first five points leave classes 2 and 3 out
def test_is_the_equation(average: str, count: int) -> None:
    sim = cosines(PROXY_DEGREES, DEGREES)
    pull, push, present = 0.0, 0.0, 0
    for c in range(len(PROXY_DEGREES)):
        own = [x for x in range(count) if LABELS[x] == c]
        other = [x for x in range(count) if LABELS[x] != c]
        present += bool(own)
        pull += math.log(1 + sum(math.exp(-16 * (sim[c][x] - 0.2)) for x in own))
        push += math.log(1 + sum(math.exp(16 * (sim[c][x] + 0.2)) for x in other))
    expected = pull / (present if average == "present" else 4) + push / 4
    labels = torch.tensor(LABELS)[:count]
    pairs = on_anchors(unit(DEGREES)[:count], labels, unit(PROXY_DEGREES))
    ours = proxy_anchor(pairs, margin=0.2, alpha=16, average=average)
    assert ours.item() == pytest.approx(expected)


@pytest.mark.parametrize("classes", [6, 9])  # 9: three classes absent from the batch
def test_is_pml(classes: int) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    proxies = random_proxies(classes)
    theirs = losses.ProxyAnchorLoss(classes, 16).double()
    theirs.proxies.data = proxies
    assert_same(
        proxy_anchor(on_anchors(vectors, labels, proxies)), theirs(vectors, labels), vectors
    )
