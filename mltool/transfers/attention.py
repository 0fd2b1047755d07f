"""Zagoruyko, Komodakis, Paying More Attention to Attention, ICLR 2017."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.transfers._maps import same_size
from mltool.transfers._vectors import sides

INPUT = "unit"
NEEDS = {"maps"}


def attention(
    student: Tensor,
    teacher: Tensor,
    student_maps: Sequence[Tensor],
    teacher_maps: Sequence[Tensor],
) -> Tensor:
    """Where in the image the activations are strong, stage by stage.

    sum_stages mean_(b, x) ( a_bx - a'_bx )^2, a_b = A_b / |A_b|, A_bx = mean_c m_bcx^2

    Args:
        student, teacher: [B, D_s], [B, D_t], of no account here.
        student_maps: one [B, C, H, W] per stage.
        teacher_maps: likewise (a'); C may differ.

    Where heights or widths differ, the larger A is averaged down to the smaller one (adaptive
    average pooling); the paper leaves open how. Meant to stand beside another loss.
    """
    terms = [
        _difference(*sides(own, theirs))
        for own, theirs in zip(student_maps, teacher_maps, strict=True)
    ]
    return torch.stack(terms).sum()


def _difference(student: Tensor, teacher: Tensor) -> Tensor:
    energies = [maps.square().mean(dim=1, keepdim=True) for maps in (student, teacher)]
    own, theirs = (F.normalize(energy.flatten(1)) for energy in same_size(*energies))
    return F.mse_loss(own, theirs)
