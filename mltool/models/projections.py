"""From pooled features [B, C] to an embedding [B, D]: the last layer before normalisation."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from mltool.components import suggest
from mltool.errors import UsageError


@dataclass(frozen=True)
class Projection:
    """`before` acts on maps [B, C, H, W], `after` on pooled vectors."""

    before: nn.Module
    after: nn.Module


def _linear(channels: int, dim: int) -> Projection:
    return Projection(nn.Identity(), nn.Linear(channels, dim))


def _conv(channels: int, dim: int) -> Projection:
    return Projection(nn.Conv2d(channels, dim, kernel_size=1), nn.Identity())


def _linear_bn(channels: int, dim: int) -> Projection:
    layers = nn.Sequential(nn.Linear(channels, dim, bias=False), nn.BatchNorm1d(dim))
    return Projection(nn.Identity(), layers)


def _layernorm(channels: int, dim: int) -> Projection:
    # ProxyNCA++: the normalisation has no parameters
    norm = nn.LayerNorm(channels, elementwise_affine=False)
    layers = nn.Sequential(norm, nn.Identity() if channels == dim else nn.Linear(channels, dim))
    return Projection(nn.Identity(), layers)


def _none(channels: int, dim: int) -> Projection:
    if dim != channels:
        raise UsageError(f"projection none keeps the {channels} channels; drop --dim {dim}")
    return Projection(nn.Identity(), nn.Identity())


PROJECTIONS: dict[str, Callable[[int, int], Projection]] = {
    "linear": _linear,
    "conv": _conv,
    "linear-bn": _linear_bn,
    "layernorm": _layernorm,
    "none": _none,
}


def create(name: str, *, channels: int, dim: int) -> Projection:
    """Build a projection by its name in PROJECTIONS. Raises UsageError for another name."""
    if name not in PROJECTIONS:
        near = suggest(name, list(PROJECTIONS))
        names = ", ".join(PROJECTIONS)
        raise UsageError(f"no projection {name!r}{near} (there are: {names})")
    return PROJECTIONS[name](channels, dim)
