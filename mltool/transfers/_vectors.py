"""Vectors of two models side by side, and the distances among the rows of one."""

import torch
from torch import Tensor


def widen(values: Tensor) -> Tensor:
    """Return half precision as float32, wider types unchanged."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def match_precision(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Return both in the student's precision, at least float32; the teacher gets no gradient."""
    student = widen(student)
    return student, teacher.detach().to(student.dtype)


def distances(vectors: Tensor) -> Tensor:
    """Return the Euclidean distances of all rows, [n, D] -> [n, n].

    The diagonal is 0, all other entries are at least 1e-6. Duplicates get no gradient: the slope of
    their distance would be infinite.
    """
    # the squares of a common offset would drown the distances in rounding
    centered = vectors - vectors.mean(dim=0)
    norms = centered.square().sum(dim=1)
    squares = norms[:, None] + norms - 2 * centered @ centered.T
    itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
    return squares.clamp(min=1e-12).sqrt().masked_fill(itself, 0)
