"""From pooled features [B, C] to an embedding [B, D]: the last layer before normalisation."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from mltool.components import suggest
from mltool.errors import UsageError
from mltool.parts import join_blocks, save_as_one, split_blocks


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


class SlicedLinear(nn.Module):
    """A linear layer whose rows stand in blocks, one for each slice of its output.

    It starts as the layer that it replaces, and is saved as such a one.
    """

    def __init__(self, layer: nn.Linear, count: int) -> None:
        super().__init__()
        self.weight = split_blocks(layer.weight, count)
        self.bias = split_blocks(layer.bias, count)
        save_as_one(self, "weight")
        save_as_one(self, "bias")

    def forward(self, pooled: Tensor) -> Tensor:
        """Return all slices, [B, C] -> [B, D]."""
        return functional.linear(pooled, join_blocks(self.weight), join_blocks(self.bias))

    def project_slice(self, pooled: Tensor, number: int) -> Tensor:
        """Return one slice, [B, C] -> [B, D / K]; no other block gets a gradient."""
        return functional.linear(pooled, self.weight[number], self.bias[number])


def slice_linear(after: nn.Module, count: int) -> nn.Module:
    """Replace the linear layer of what acts on pooled features by a sliced one, if it has one."""
    if isinstance(after, nn.Linear):
        return SlicedLinear(after, count)
    if isinstance(after, nn.Sequential) and isinstance(after[-1], nn.Linear):
        after[-1] = SlicedLinear(after[-1], count)
    return after


def project_slice(after: nn.Module, pooled: Tensor, number: int) -> Tensor | None:
    """Return one slice [B, D / K] of the projection of pooled features [B, C].

    None where there is no sliced layer.
    """
    *before, last = after if isinstance(after, nn.Sequential) else (after,)
    if not isinstance(last, SlicedLinear):
        return None
    for layer in before:
        pooled = layer(pooled)
    return last.project_slice(pooled, number)
