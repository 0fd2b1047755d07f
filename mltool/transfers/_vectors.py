"""Vectors of two models side by side, and the distances among the rows of one."""

import torch
from torch import Tensor


def widened(values: Tensor) -> Tensor:
    """Half precision as float32; wider types as they are."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def sides(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both in the student's precision, at least float32, and the teacher without gradient."""
    student = widened(student)
    return student, teacher.detach().to(student.dtype)


def distances(vectors: Tensor) -> Tensor:
    """Euclidean distances of all rows, [n, D] -> [n, n].

    The diagonal is 0, everything else at least 1e-6: duplicates have a distance but no slope, which
    would be infinite.
    """
    centered = vectors - vectors.mean(dim=0)  # a common offset would drown them in rounding
    norms = centered.square().sum(dim=1)
    squares = norms[:, None] + norms - 2 * centered @ centered.T
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return squares.clamp(min=1e-12).sqrt().masked_fill(itself, 0)
