"""Feature maps of two models side by side."""

import torch
from torch import Tensor


def match_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Average maps [B, C, H, W] down to the smaller height and the smaller width of the two."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    return adaptive_average(student, height, width), adaptive_average(teacher, height, width)


def adaptive_average(maps: Tensor, height: int, width: int) -> Tensor:
    """Apply adaptive average pooling, [B, C, H, W] -> [B, C, height, width].

    The pooling is two matrix products, because torch's has no deterministic backward on CUDA.
    """
    if maps.shape[2:] == (height, width):
        return maps
    vertical = _mean_matrix(maps, maps.shape[2], height)
    return vertical @ maps @ _mean_matrix(maps, maps.shape[3], width).T


def _mean_matrix(like: Tensor, inputs: int, outputs: int) -> Tensor:
    """Build the matrix [outputs, inputs] whose rows average the inputs that one output covers."""
    column = torch.arange(inputs, device=like.device)
    row = torch.arange(outputs, device=like.device)[:, None]
    covered = (column >= row * inputs // outputs) & (column * outputs < (row + 1) * inputs)
    return covered.to(like.dtype) / covered.sum(dim=1, keepdim=True)
