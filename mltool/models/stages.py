"""Listening to a network at a stage, and entering it there with other values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mltool.components import suggest
from mltool.errors import UsageError

INPUT, LAST = "input", "last"  # the images, and the feature maps before the pooling


@dataclass
class StageHook:
    """A place in the network: `input`, a stage of the backbone by timm's name, or `last`.

    A pass with a tap leaves in `seen` what came by. With `replacement` the forward pass continues
    from these activations, any number of rows; pass one dummy image then, only its size is used.
    """

    stage: str
    replacement: Tensor | None = None
    seen: Tensor | None = None

    def through(self, values: Tensor) -> Tensor:
        """What goes on behind the tap, when `values` come."""
        self.seen = values
        return values if self.replacement is None else self.replacement


def names(backbone: nn.Module) -> list[str]:
    """The stages of a network where a single tensor comes by, from the images on."""
    infos = getattr(backbone, "feature_info", [])
    return [INPUT, *(str(info["module"]) for info in infos), LAST]


def check(backbone: nn.Module, stage: str) -> None:
    """Raise UsageError for a stage that the network does not have."""
    known = names(backbone)
    if stage not in known:
        near = suggest(stage, known)
        raise UsageError(
            f"the network has no stage {stage!r}{near} (there are: {', '.join(known)})"
        )


@contextmanager
def tapped(backbone: nn.Module, tap: StageHook) -> Iterator[None]:
    """In the block `tap` stands at its stage inside the backbone.

    When it replaces what comes by, the layers before it work in evaluation mode: the image they
    see must not move their statistics.
    """
    check(backbone, tap.stage)
    modes = {module: module.training for module in backbone.modules()}

    def restore() -> None:
        for module, training in modes.items():
            module.training = training

    def hook(module: nn.Module, inputs: tuple, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise UsageError(f"stage {tap.stage} gives no single tensor; use another one")
        restore()
        return tap.through(output)

    handle = backbone.get_submodule(tap.stage).register_forward_hook(hook)
    try:
        if tap.replacement is not None:
            backbone.eval()
        yield
    finally:
        handle.remove()
        restore()


@contextmanager
def kept_statistics(model: nn.Module) -> Iterator[None]:
    """In the block batch normalisation uses the statistics of the batch, but remembers none."""
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    try:
        for module in momenta:
            module.momentum = 0.0
        yield
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum
