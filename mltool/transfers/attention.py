"""Zagoruyko, Komodakis, Paying More Attention to Attention, ICLR 2017."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.transfers._maps import match_size
from mltool.transfers._vectors import match_precision

INPUT = "unit"
NEEDS = {"maps"}


def attention(
    student: Tensor,
    teacher: Tensor,
    student_maps: Sequence[Tensor],
    teacher_maps: Sequence[Tensor],
) -> Tensor:
    """Match where in the image the activations are strong, stage by stage.

    sum_stages mean_(b, x) ( a_bx - a'_bx )^2, a_b = A_b / |A_b|, A_bx = mean_c m_bcx^2

    Args:
        student, teacher: [B, D_s], [B, D_t], not used.
        student_maps: one [B, C, H, W] per stage.
        teacher_maps: likewise (a'); C may differ.

    Where heights or widths differ, the larger A is averaged down to the smaller one (adaptive
    average pooling); the paper does not say how. The loss is meant to stand beside another one.
    """
    stages = zip(student_maps, teacher_maps, strict=True)
    return torch.stack([_difference(*match_precision(*maps)) for maps in stages]).sum()


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    """Return the mean squared difference of the attention of two maps [B, C, H, W]."""
    energies = [maps.square().mean(dim=1, keepdim=True) for maps in (student, teacher)]
    student, teacher = (F.normalize(energy.flatten(1)) for energy in match_size(*energies))
    return F.mse_loss(student, teacher)
