"""Hooks at the stages of a network: read the activations that pass, or replace them."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from torch import Tensor, nn

from mltool.components import suggest
from mltool.errors import UsageError
from mltool.models.modes import switch_to_eval

INPUT, LAST = "input", "last"  # the images, and the feature maps before the pooling


@dataclass
class StageHook:
    """A hook at one stage: `input`, a stage of the backbone by timm's name, or `last`.

    A forward pass leaves the activations of the stage in `seen`. With `replacement` the pass
    continues from these activations instead, any number of rows; the images of such a pass count
    by their size alone, so a single blank one will do.
    """

    stage: str
    replacement: Tensor | None = None
    seen: Tensor | None = None

    def pass_on(self, values: Tensor) -> Tensor:
        """Keep the activations `values` and return those with which the pass continues."""
        self.seen = values
        return values if self.replacement is None else self.replacement


def names(backbone: nn.Module) -> list[str]:
    """List the stages of a network that pass a single tensor on, from the images on."""
    infos = getattr(backbone, "feature_info", [])
    return [INPUT, *(str(info["module"]) for info in infos), LAST]


def check(backbone: nn.Module, stage: str) -> None:
    """Raise UsageError for a stage that the network does not have."""
    stages = names(backbone)
    if stage not in stages:
        near = suggest(stage, stages)
        raise UsageError(
            f"the network has no stage {stage!r}{near} (there are: {', '.join(stages)})"
        )


@contextmanager
def attach(backbone: nn.Module, hook: StageHook) -> Iterator[None]:
    """Attach a hook to its stage inside the backbone for the block.

    With a replacement the layers before the stage work in evaluation mode: the blank image that
    they see must not move their running statistics.
    """
    check(backbone, hook.stage)
    modes = {module: module.training for module in backbone.modules()}

    def intercept(module: nn.Module, inputs: tuple, output: object) -> Tensor:
        if not isinstance(output, Tensor):
            raise UsageError(f"stage {hook.stage} gives no single tensor; use another one")
        for each, training in modes.items():  # the layers behind the stage train again
            each.training = training
        return hook.pass_on(output)

    handle = backbone.get_submodule(hook.stage).register_forward_hook(intercept)
    try:
        if hook.replacement is None:
            yield
        else:
            with switch_to_eval(backbone):
                yield
    finally:
        handle.remove()
