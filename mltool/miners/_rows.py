"""Extremes of each row among the pairs that exist."""

import torch
from torch import Tensor


def lowest(sim: Tensor, weight: Tensor) -> Tensor:
    """Return each row's lowest similarity of non-zero weight, [A, B] -> [A, 1]; +inf if none."""
    return sim.masked_fill(weight <= 0, torch.inf).amin(dim=1, keepdim=True)


def highest(sim: Tensor, weight: Tensor) -> Tensor:
    """Return each row's highest similarity of non-zero weight, [A, B] -> [A, 1]; -inf if none."""
    return sim.masked_fill(weight <= 0, -torch.inf).amax(dim=1, keepdim=True)
