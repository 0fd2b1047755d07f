"""An exponential moving average of the weights, which often retrieves better than the last step."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """Averages every parameter: a <- decay * a + (1 - decay) * parameter.

    The decay ramps up as (1 + t) / (10 + t), so that early averages forget the random start.
    Buffers (running statistics) are averages already and are used as they are.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self.decay, self.updates = decay, 0
        self.averages = {name: p.detach().clone() for name, p in model.named_parameters()}

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Fold the model's present parameters in."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        parameters = [p.detach() for _, p in model.named_parameters()]
        torch._foreach_lerp_(list(self.averages.values()), parameters, 1 - decay)

    @contextmanager
    def apply_to(self, model: nn.Module) -> Iterator[None]:
        """Put the averages into the model for the block, then its own weights back."""
        weights = {name: p.detach().clone() for name, p in model.named_parameters()}
        self._assign(model, self.averages)
        try:
            yield
        finally:
            self._assign(model, weights)

    @torch.no_grad()
    def _assign(self, model: nn.Module, values: dict[str, Tensor]) -> None:
        for name, parameter in model.named_parameters():
            parameter.copy_(values[name])
