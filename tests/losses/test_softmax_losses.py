"""The losses of a batch against one proxy per class that are a softmax."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from loss_cases import (
    DEGREES,
    LABELS,
    PROXY_DEGREES,
    against_proxies,
    apart,
    assert_same,
    cosines,
    random_batch,
    random_proxies,
)
from pytorch_metric_learning import losses
from torch import Tensor, nn

from mltool.losses import Pairs, pairs_from_labels
from mltool.losses.arcface import arcface
from mltool.losses.cosface import cosface
from mltool.losses.normalized_softmax import normalized_softmax
from mltool.losses.proxy_nca import proxy_nca
from mltool.losses.proxy_nca_pp import proxy_nca_pp

SIM = cosines(DEGREES, PROXY_DEGREES)


def looped(target: Callable[[float], float], other: Callable[[float], float]) -> float:
    """Mean of -log( e^target(s_y) / (e^target(s_y) + sum e^other(s_c)) )."""
    total = 0.0
    for a, label in enumerate(LABELS):
        own = math.exp(target(SIM[a][label]))
        rest = sum(math.exp(other(s)) for c, s in enumerate(SIM[a]) if c != label)
        total -= math.log(own / (own + rest))
    return total / len(LABELS)


def test_normalized_softmax_is_the_equation() -> None:
    expected = looped(lambda s: s / 0.2, lambda s: s / 0.2)
    ours = normalized_softmax(against_proxies(), temperature=0.2)
    assert ours.item() == pytest.approx(expected)


def test_cosface_is_the_equation() -> None:
    expected = looped(lambda s: 8 * (s - 0.35), lambda s: 8 * s)
    assert cosface(against_proxies(), scale=8).item() == pytest.approx(expected)


def test_arcface_is_the_equation() -> None:
    def target(s: float) -> float:
        angle = math.acos(s)
        if angle > math.pi - 0.5:
            return 8 * (math.cos(angle) - 0.5 * math.sin(0.5))
        return 8 * math.cos(angle + 0.5)

    expected = looped(target, lambda s: 8 * s)
    assert arcface(against_proxies(), scale=8).item() == pytest.approx(expected)


def test_proxy_nca_pp_is_the_equation() -> None:
    expected = looped(lambda s: -3 * apart(s) ** 2, lambda s: -3 * apart(s) ** 2)
    assert proxy_nca_pp(against_proxies(), scale=3).item() == pytest.approx(expected)


def test_proxy_nca_is_the_equation_and_may_be_negative() -> None:
    total = 0.0
    for a, label in enumerate(LABELS):
        rest = sum(math.exp(-(apart(s) ** 2)) for c, s in enumerate(SIM[a]) if c != label)
        total -= math.log(math.exp(-(apart(SIM[a][label]) ** 2)) / rest)
    assert proxy_nca(against_proxies()).item() == pytest.approx(total / len(LABELS))
    assert proxy_nca(against_proxies(), scale=9).item() < 0


def pml(kind: type[nn.Module], weights: Tensor, **settings: float) -> nn.Module:
    """A PML classification loss whose weights are given proxies."""
    theirs = kind(len(weights), weights.shape[1], **settings).double()
    parameter = next(theirs.parameters())
    parameter.data = weights if parameter.shape == weights.shape else weights.T.clone()
    return theirs


@pytest.mark.parametrize(
    ("ours", "kind", "settings"),
    [
        (normalized_softmax, losses.NormalizedSoftmaxLoss, {}),
        (cosface, losses.CosFaceLoss, {}),
        (lambda pairs: arcface(pairs, margin=math.radians(28.6)), losses.ArcFaceLoss, {}),
        (lambda pairs: proxy_nca_pp(pairs, scale=1), losses.ProxyNCALoss, {}),
        (proxy_nca_pp, losses.ProxyNCALoss, {"softmax_scale": 9}),
    ],
    ids=["normalized_softmax", "cosface", "arcface", "proxy_nca_pp-1", "proxy_nca_pp"],
)
def test_are_pml(
    ours: Callable[[Pairs], Tensor], kind: type[nn.Module], settings: dict[str, float]
) -> None:
    vectors, labels = random_batch()
    proxies = random_proxies()
    vectors[0] = -proxies[labels[0]]  # at an angle of pi: ArcFace's continuation
    vectors.requires_grad_()
    pairs = pairs_from_labels(vectors @ proxies.T, labels, torch.arange(len(proxies)))
    assert_same(ours(pairs), pml(kind, proxies, **settings)(vectors, labels), vectors)


def test_proxy_nca_pp_is_cross_entropy_over_eighteen_cosines() -> None:
    vectors, labels = random_batch()
    logits = vectors @ random_proxies().T
    pairs = pairs_from_labels(logits, labels, torch.arange(6))
    torch.testing.assert_close(proxy_nca_pp(pairs), F.cross_entropy(18 * logits, labels))


def test_arcface_falls_with_the_cosine_everywhere() -> None:
    cosine = torch.linspace(-1, 1, 2001, dtype=torch.float64)[:, None]
    sim = torch.cat([cosine, torch.zeros_like(cosine)], dim=1)
    pairs = pairs_from_labels(sim, torch.zeros(2001, dtype=torch.long), torch.arange(2))
    values = torch.stack([arcface(Pairs(*(m[i : i + 1] for m in pairs))) for i in range(2001)])
    assert (values.diff() <= 0).all()
