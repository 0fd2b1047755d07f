"""The precision of what models hand on: float32, and float64 where a run computes in it."""

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """Return half precision as float32, wider types unchanged."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
