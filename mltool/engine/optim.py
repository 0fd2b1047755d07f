"""Optimisers with separate rates for backbone, head and the objective's own parameters."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn, optim

from mltool.engine.objectives.transfer import TransferTerm
from mltool.errors import InputError, UsageError

OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop"]
ScheduleName = Literal["cosine", "constant", "step"]

# Rates of the parts relative to --lr where they are not given. A pretrained backbone moves ten
# times slower than a fresh head; proxies, which see few gradients each, ten times faster.
PRETRAINED_BACKBONE = 0.1
PROXIES = 10.0


@dataclass(frozen=True)
class OptimSettings:
    """What decides how parameters move."""

    optimizer: OptimizerName
    lr: float
    lr_backbone: float | None
    lr_proxies: float | None
    weight_decay: float
    momentum: float
    schedule: ScheduleName
    warmup: float  # epochs


def create(
    model: nn.Module, objective: nn.Module, settings: OptimSettings, *, pretrained: bool
) -> optim.Optimizer:
    """An optimiser whose groups carry their parameters' names and their part.

    Biases, gains and other vectors, and proxies are not decayed. What else the objective learns,
    such as a transfer's projections, is like the head. Raises UsageError when there is nothing to
    learn.
    """
    rates = rates_of(settings, pretrained=pretrained)
    groups: dict[tuple[str, float], list[tuple[str, nn.Parameter]]] = {}
    named = [(f"model.{n}", p) for n, p in model.named_parameters()]
    named += [(f"objective.{n}", p) for n, p in objective.named_parameters()]
    layers = [m for m in objective.modules() if isinstance(m, TransferTerm)]
    like_head = {id(parameter) for layer in layers for parameter in layer.parameters()}
    for name, parameter in named:
        part = "head" if id(parameter) in like_head else _part(name)
        matrix = parameter.numel() > max(parameter.shape, default=1)  # [C, 1, 1] is a vector
        decay = settings.weight_decay if part != "objective" and matrix else 0.0
        groups.setdefault((part, decay), []).append((name, parameter))
    if not groups:
        raise UsageError("neither the model nor the loss has anything to learn; use another --arch")
    return _OPTIMIZERS[settings.optimizer](
        [
            {
                "params": [p for _, p in members],
                "names": [n for n, _ in members],
                "part": part,
                "lr": rates[part],
                "base_lr": rates[part],
                "weight_decay": decay,
            }
            for (part, decay), members in groups.items()
        ],
        settings,
    )


def rates_of(settings: OptimSettings, *, pretrained: bool) -> dict[str, float]:
    """The base rate of each part."""
    slower = PRETRAINED_BACKBONE if pretrained else 1.0
    backbone, proxies = settings.lr_backbone, settings.lr_proxies
    return {
        "backbone": settings.lr * slower if backbone is None else backbone,
        "head": settings.lr,
        "objective": settings.lr * PROXIES if proxies is None else proxies,
    }


def _part(name: str) -> str:
    if name.startswith("objective."):
        return "objective"
    return "backbone" if name.startswith("model.backbone.") else "head"


def _fused(groups: list[dict]) -> bool:
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])


_OPTIMIZERS: dict[str, Callable[[list[dict], OptimSettings], optim.Optimizer]] = {
    "adamw": lambda groups, s: optim.AdamW(groups, lr=s.lr, fused=_fused(groups)),
    "adam": lambda groups, s: optim.Adam(groups, lr=s.lr, fused=_fused(groups)),
    "sgd": lambda groups, s: optim.SGD(
        groups, lr=s.lr, momentum=s.momentum, nesterov=s.momentum > 0, fused=_fused(groups)
    ),
    "rmsprop": lambda groups, s: optim.RMSprop(groups, lr=s.lr, momentum=s.momentum),
}


def set_rates(
    optimizer: optim.Optimizer, settings: OptimSettings, *, epoch: float, epochs: int
) -> None:
    """Give every group its rate at a moment, `epoch` counted with fractions."""
    factor = _factor(settings, epoch, epochs)
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor


def _factor(settings: OptimSettings, epoch: float, epochs: int) -> float:
    if epoch < settings.warmup:
        return min((epoch + 1e-3) / settings.warmup, 1.0)
    done = (epoch - settings.warmup) / max(epochs - settings.warmup, 1e-9)
    if settings.schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))
    if settings.schedule == "step":
        return 0.1 ** min(int(3 * done), 2)  # two drops by ten, at one and two thirds
    return 1.0


def state(optimizer: optim.Optimizer) -> dict[str, Tensor]:
    """The optimiser's tensors by parameter name and key."""
    return {
        f"{name}/{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_state(optimizer: optim.Optimizer, saved: dict[str, Tensor], path: str) -> None:
    """Put saved tensors back. Raises InputError where they do not fit the parameters."""
    known: set[str] = set()
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            own = {k: v for k, v in saved.items() if k.rpartition("/")[0] == name}
            known |= own.keys()
            for key, value in own.items():
                place = _place(key, parameter, fused=bool(group.get("fused")))
                if value.shape != place.shape:
                    raise InputError(f"{path}: optimiser state of {name} does not fit the model")
                optimizer.state[parameter][key.rpartition("/")[2]] = place.copy_(value)
    if saved.keys() - known:
        raise InputError(f"{path}: optimiser state of parameters that the model does not have")


def _place(key: str, parameter: nn.Parameter, *, fused: bool) -> Tensor:
    """Room for a tensor of the state, where and as the optimiser itself would make it."""
    if key.endswith("/step"):  # a count, which only the fused steps read on the device
        return torch.empty((), device=parameter.device if fused else "cpu")
    # the fused steps walk memory, so moments must lie as their parameter does
    return torch.empty_like(parameter)
