"""Training and evaluation mode of a network, and the running statistics of its normalisation."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


def has_batch_norm(model: nn.Module) -> bool:
    """Return whether a model normalises by the statistics of a batch."""
    return any(isinstance(module, _BatchNorm) for module in model.modules())


@contextmanager
def switch_to_eval(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode for the block; then every module gets its mode back.

    Modes are kept module by module, because frozen batch normalisation stays in evaluation mode
    while the rest trains.
    """
    modes = {module: module.training for module in model.modules()}
    try:
        model.eval()
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def keep_statistics(model: nn.Module) -> Iterator[None]:
    """Let batch normalisation use the statistics of the batch in the block, but remember none."""
    momenta = {m: m.momentum for m in model.modules() if isinstance(m, _BatchNorm)}
    try:
        for module in momenta:
            module.momentum = 0.0
        yield
    finally:
        for module, momentum in momenta.items():
            module.momentum = momentum


@contextmanager
def hold_still(model: nn.Module) -> Iterator[None]:
    """Let a network get no gradient and remember no statistics in the block."""
    with torch.no_grad(), keep_statistics(model):
        yield
