"""Feature maps of two models side by side."""

import torch
from torch import Tensor


def same_size(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Maps [B, C, H, W] brought to the smaller height and the smaller width of the two."""
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    return averaged(student, height, width), averaged(teacher, height, width)


def averaged(maps: Tensor, height: int, width: int) -> Tensor:
    """Adaptive average pooling, [B, C, H, W] -> [B, C, height, width].

    By two products, because the pooling of torch has no deterministic backward on CUDA.
    """
    if maps.shape[2:] == (height, width):
        return maps
    return _shares(maps, maps.shape[2], height) @ maps @ _shares(maps, maps.shape[3], width).T


def _shares(like: Tensor, inputs: int, outputs: int) -> Tensor:
    """[outputs, inputs], each row a mean over the inputs that one output covers."""
    place = torch.arange(inputs, device=like.device)
    output = torch.arange(outputs, device=like.device)[:, None]
    covered = (place >= output * inputs // outputs) & (place * outputs < (output + 1) * inputs)
    return covered.to(like.dtype) / covered.sum(dim=1, keepdim=True)
