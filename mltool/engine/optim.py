"""Optimisers whose groups, named after what learns, have rates of their own.

Parameters of the model go by its child modules; a term of the objective names the group of what it
learns.
"""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn, optim

from mltool.engine.lars import Lars, is_vector
from mltool.errors import InputError, UsageError
from mltool.options.optimisation import RATE_GROUPS, OptimizerName, ScheduleName

Members = list[tuple[str, nn.Parameter]]
OTHERWISE = "proxies"  # of an objective that names none
GROUP_OF = {"parts": "masks"}  # of children of the model, where the names differ

# Rates relative to --lr where they are not asked for. A pretrained backbone moves ten times slower
# than a fresh head; proxies, which see few gradients each, ten times faster.
PRETRAINED_BACKBONE = 0.1
PROXIES = 10.0


@dataclass(frozen=True)
class OptimSettings:
    """What decides how parameters move."""

    optimizer: OptimizerName
    lr: float
    weight_decay: float
    momentum: float
    schedule: ScheduleName
    warmup: float  # epochs
    lr_groups: Mapping[str, float] = field(default_factory=dict)  # rates of some groups


def create(
    model: nn.Module, objective: nn.Module, settings: OptimSettings, *, pretrained: bool
) -> optim.Optimizer:
    """Create an optimiser whose groups carry their names and those of their parameters.

    Biases, gains and other vectors, and proxies are not decayed. Raises UsageError when there is
    nothing to learn, and for the rate of a group that does not exist.
    """
    rates = choose_rates(settings, pretrained=pretrained)
    groups = _group_parameters(model, objective, settings.weight_decay)
    if not groups:
        raise UsageError("neither the model nor the loss has anything to learn; use another --arch")
    _refuse_absent(settings, [group for group, _, _ in groups])
    return _OPTIMIZERS[settings.optimizer](
        [
            {
                "params": [p for _, p in members],
                "names": [n for n, _ in members],
                "group": group,
                "lr": rates[group],
                "base_lr": rates[group],
                "weight_decay": decay,
            }
            for group, decay, members in groups
        ],
        settings,
    )


def _group_parameters(
    model: nn.Module, objective: nn.Module, weight_decay: float
) -> list[tuple[str, float, Members]]:
    """Return (group, weight decay, members) of all that learns.

    The order decides how the norm of a gradient is rounded, hence clipped. All groups but
    `backbone` and `proxies` stand together, those of one decay side by side.
    """
    groups: dict[tuple[str, float], dict[str, Members]] = {}
    for group, name, parameter in _list_parameters(model, objective):
        decay = 0.0 if group == "proxies" or is_vector(parameter) else weight_decay
        section = group if group in ("backbone", "proxies") else "head"
        groups.setdefault((section, decay), {}).setdefault(group, []).append((name, parameter))
    return [
        (group, decay, members)
        for (_, decay), by_group in groups.items()
        for group, members in by_group.items()
    ]


def choose_rates(settings: OptimSettings, *, pretrained: bool) -> dict[str, float]:
    """Return the base rate of each group."""
    rates = dict.fromkeys(RATE_GROUPS, settings.lr)
    rates["backbone"] *= PRETRAINED_BACKBONE if pretrained else 1.0
    rates["proxies"] *= PROXIES
    return rates | dict(settings.lr_groups)


def _refuse_absent(settings: OptimSettings, present: Sequence[str]) -> None:
    for name in settings.lr_groups:
        if name not in present:
            names = ", ".join(dict.fromkeys(present))
            raise UsageError(
                f"there is a rate for {name}, but nothing of that name learns here ({names} do)"
            )


def _list_parameters(
    model: nn.Module, objective: nn.Module
) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Yield (group, name, parameter) of all that learns."""
    for name, parameter in model.named_parameters():
        child = GROUP_OF.get(first := name.partition(".")[0], first)
        yield child if child in RATE_GROUPS else "projection", f"model.{name}", parameter
    group_of: dict[nn.Parameter, str] = {}
    for module in objective.modules():  # the inner modules come later, and prevail
        if (group := getattr(module, "group", None)) is not None:
            group_of |= dict.fromkeys(module.parameters(), group)
    for name, parameter in objective.named_parameters():
        yield group_of.get(parameter, OTHERWISE), f"objective.{name}", parameter


def _can_fuse(groups: list[dict]) -> bool:
    return all(p.device.type in ("cpu", "cuda") for group in groups for p in group["params"])


def _create_sgd(groups: list[dict], settings: OptimSettings) -> optim.SGD:
    """Create momentum SGD with all of its buffers.

    Torch's fused step fails where a parameter, frozen at first, gets its first gradient later than
    others of its group. A buffer of zeros becomes the first gradient, as a missing one does.
    """
    momentum = settings.momentum
    sgd = optim.SGD(
        groups, lr=settings.lr, momentum=momentum, nesterov=momentum > 0, fused=_can_fuse(groups)
    )
    for parameter in (p for group in sgd.param_groups for p in group["params"] if momentum):
        sgd.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return sgd


_OPTIMIZERS: dict[str, Callable[[list[dict], OptimSettings], optim.Optimizer]] = {
    "adamw": lambda groups, s: optim.AdamW(groups, lr=s.lr, fused=_can_fuse(groups)),
    "adam": lambda groups, s: optim.Adam(groups, lr=s.lr, fused=_can_fuse(groups)),
    "sgd": _create_sgd,
    "rmsprop": lambda groups, s: optim.RMSprop(groups, lr=s.lr, momentum=s.momentum),
    "lars": lambda groups, s: Lars(groups, lr=s.lr, momentum=s.momentum),
}


def set_rates(
    optimizer: optim.Optimizer, settings: OptimSettings, *, epoch: float, epochs: int
) -> None:
    """Set the rate of every group, `epoch` counted with fractions."""
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
    """Return the optimiser's tensors by parameter name and key."""
    return {
        f"{name}/{key}": value
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
        for key, value in optimizer.state.get(parameter, {}).items()
        if isinstance(value, Tensor)
    }


def load_state(optimizer: optim.Optimizer, saved: dict[str, Tensor], path: str) -> None:
    """Put saved tensors back. Raises InputError where they do not fit the parameters."""
    used: set[str] = set()
    for group in optimizer.param_groups:
        for name, parameter in zip(group["names"], group["params"], strict=True):
            tensors = {k: v for k, v in saved.items() if k.rpartition("/")[0] == name}
            used |= tensors.keys()
            for key, value in tensors.items():
                empty = _allocate(key, parameter, fused=bool(group.get("fused")))
                if value.shape != empty.shape:
                    raise InputError(f"{path}: optimiser state of {name} does not fit the model")
                optimizer.state[parameter][key.rpartition("/")[2]] = empty.copy_(value)
    if saved.keys() - used:
        raise InputError(f"{path}: optimiser state of parameters that the model does not have")


def clear_moments(optimizer: optim.Optimizer, names: Collection[str]) -> None:
    """Forget what the optimiser knows of parameters, as if they had had no gradient yet.

    Names are those of its groups: `model.` or `objective.` and the name inside. Raises KeyError
    for one that does not learn.
    """
    members = {
        name: parameter
        for group in optimizer.param_groups
        for name, parameter in zip(group["names"], group["params"], strict=True)
    }
    for name in names:
        for value in optimizer.state.get(members[name], {}).values():
            if isinstance(value, Tensor):
                value.zero_()  # moments and counts of all optimisers here begin at 0


def _allocate(key: str, parameter: nn.Parameter, *, fused: bool) -> Tensor:
    """Allocate a tensor of the state, where and as the optimiser itself would."""
    if key.endswith("/step"):  # a count, which only the fused steps read on the device
        return torch.empty((), device=parameter.device if fused else "cpu")
    # the fused steps walk memory, so moments must lie as their parameter does
    return torch.empty_like(parameter)
