"""Small inputs for the tests of losses and miners, and the same losses as PML calls them."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.losses import Pairs, pairs_from_labels

# hand-placed points on the unit circle; class 3 has a single member
DEGREES = (0.0, 25.0, 70.0, 95.0, 110.0, 180.0, 200.0, 318.0)
LABELS = (0, 0, 1, 0, 1, 2, 2, 3)
PROXY_DEGREES = (10.0, 85.0, 175.0, 290.0)


def unit(degrees: tuple[float, ...]) -> Tensor:
    """Points on the unit circle, [N, 2] float64."""
    angles = torch.tensor(degrees, dtype=torch.float64).deg2rad()
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def cosines(first: tuple[float, ...], second: tuple[float, ...]) -> list[list[float]]:
    """Similarities by plain Python, for the loops."""
    return [[math.cos(math.radians(a - b)) for b in second] for a in first]


def square() -> Pairs:
    """The points against themselves."""
    labels = torch.tensor(LABELS)
    points = unit(DEGREES)
    itself = torch.eye(len(labels), dtype=torch.bool)
    return pairs_from_labels(points @ points.T, labels, labels, exclude=itself)


def against_proxies() -> Pairs:
    """The points against one proxy per class."""
    sim = unit(DEGREES) @ unit(PROXY_DEGREES).T
    return pairs_from_labels(sim, torch.tensor(LABELS), torch.arange(len(PROXY_DEGREES)))


def positives(anchor: int) -> list[int]:
    """Columns of the anchor's class in `square`, without the anchor."""
    return [j for j, y in enumerate(LABELS) if y == LABELS[anchor] and j != anchor]


def negatives(anchor: int) -> list[int]:
    """Columns of other classes in `square`."""
    return [j for j, y in enumerate(LABELS) if y != LABELS[anchor]]


def apart(sim: float) -> float:
    """Euclidean distance of unit vectors."""
    return math.sqrt(max(2 - 2 * sim, 1e-8))


def random_batch(
    rows: int = 24, classes: int = 6, dim: int = 16, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Unit vectors [rows, dim] float64, somewhat clustered, and balanced labels [rows]."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % classes
    centers = torch.randn(classes, dim, generator=generator, dtype=torch.float64)
    noise = torch.randn(rows, dim, generator=generator, dtype=torch.float64)
    return F.normalize(0.6 * centers[labels] + noise, dim=1), labels


def random_proxies(count: int = 6, dim: int = 16, seed: int = 1) -> Tensor:
    """Unit vectors [count, dim] float64."""
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(count, dim, generator=generator, dtype=torch.float64), dim=1)


def square_of(vectors: Tensor, labels: Tensor) -> Pairs:
    """A batch against itself."""
    itself = torch.eye(len(labels), dtype=torch.bool)
    return pairs_from_labels(vectors @ vectors.T, labels, labels, exclude=itself)


def assert_same(ours: Tensor, theirs: Tensor, vectors: Tensor) -> None:
    """Value and gradient agree to float64 rounding.

    PML normalises the vectors once more, which removes the radial part of the gradient.
    """
    torch.testing.assert_close(ours, theirs, rtol=1e-7, atol=1e-9, check_dtype=False)
    found = []
    for value in (ours, theirs):
        (gradient,) = torch.autograd.grad(value, vectors, retain_graph=True)
        radial = (gradient * vectors).sum(dim=1, keepdim=True) * vectors
        found.append((gradient - radial).detach())
    torch.testing.assert_close(found[0], found[1], rtol=1e-5, atol=1e-8)
