"""A copy of a network's weights that follows them slowly, as the encoder of keys (He et al., 2020).

The copy has weights alone. Where a network normalises by the batch, its statistics are those of the
copy's own pass; where these are frozen, they are the network's and do not move. In neither case
does the copy need running statistics, and by `embed` its passes leave the network's alone.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from mltool.models.modes import keep_statistics


class Follower(nn.Module):
    """Weights w that follow those of `leader`: w <- m w + (1 - m) leader.

    They begin equal and are buffers: saved with the run, but neither trained nor part of a model.
    """

    def __init__(self, leader: nn.Module) -> None:
        super().__init__()
        self._leader = (leader,)  # a tuple, so that it is not saved here once more
        for name, parameter in leader.named_parameters():
            copy = parameter.detach().clone()
            if copy.ndim == 4:  # as the networks of a run lie in memory
                copy = copy.contiguous(memory_format=torch.channels_last)
            self.register_buffer(_to_key(name), copy)

    @property
    def weights(self) -> dict[str, Tensor]:
        """The weights by the names that they have in the leader."""
        buffers = dict(self.named_buffers())
        return {name: buffers[_to_key(name)] for name, _ in self._leader[0].named_parameters()}

    @torch.no_grad()
    def follow(self, momentum: float) -> None:
        """Move towards the present weights of the leader."""
        leading = [parameter.detach() for parameter in self._leader[0].parameters()]
        torch._foreach_lerp_(list(self.weights.values()), leading, 1 - momentum)

    @torch.no_grad()
    def embed(self, apply: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
        """Return what `apply` makes with these weights, without gradient and lasting statistics."""
        with keep_statistics(self._leader[0]):
            return apply(self.weights)


def _to_key(name: str) -> str:
    return name.replace(".", "/")  # torch allows no dot in the name of a buffer
