"""LARS (You et al.: Large Batch Training of Convolutional Networks, arXiv 1708.03888)."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn, optim

TRUST_COEFFICIENT = 0.001  # eta of the paper; BYOL and SwAV take the same


def is_vector(parameter: Tensor) -> bool:
    """Return whether a parameter has one axis, but for axes of length 1: a bias, gain or token."""
    return parameter.numel() == max(parameter.shape, default=1)


class Lars(optim.Optimizer):
    """SGD with momentum, whose steps are as long as the weights of their layer allow.

    ratio = eta |w| / (|g| + decay |w|);  v <- momentum v + ratio (g + decay w);  w <- w - lr v

    The ratio is 1 for vectors (see `is_vector`). Where weights or their gradient are zero the layer
    moves by v <- momentum v + g, as in LARC.
    The rate stands outside the momentum, as in torch's SGD and in the LARC of SwAV; the paper has
    it inside, which differs only while the rate changes. Rates of variants that clip the ratio or
    take another eta (solo-learn: 0.02) do not carry over.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move every parameter that has a gradient."""
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    direction = _scale(parameter, parameter.grad, group["weight_decay"])
                    velocity = self._accelerate(parameter, direction, group["momentum"])
                    parameter.add_(velocity, alpha=-group["lr"])

    def _accelerate(self, parameter: Tensor, direction: Tensor, momentum: float) -> Tensor:
        """Return the velocity of a parameter, which takes in the direction of this step."""
        if momentum == 0:
            return direction
        state = self.state[parameter]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        return state["momentum_buffer"].mul_(momentum).add_(direction)


def _scale(parameter: Tensor, gradient: Tensor, weight_decay: float) -> Tensor:
    """Return the decayed gradient of a parameter, scaled by the trust ratio of its layer."""
    if is_vector(parameter):
        return gradient.add(parameter, alpha=weight_decay) if weight_decay else gradient
    weights, slope = parameter.norm(), gradient.norm()
    ratio = TRUST_COEFFICIENT * weights / (slope + weight_decay * weights)
    scaled = gradient.add(parameter, alpha=weight_decay) * ratio
    # no `if`: it would wait for the device
    return torch.where((weights > 0) & (slope > 0), scaled, gradient)
