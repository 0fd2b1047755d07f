"""Romero et al., FitNets: Hints for Thin Deep Nets, ICLR 2015."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltool.transfers._maps import match_size
from mltool.transfers._vectors import match_precision

INPUT = "unit"
NEEDS = {"maps"}


class FitNet(nn.Module):
    """Feature maps equal to the teacher's after a learned 1x1 convolution, stage by stage.

    sum_stages mean_(b, c, x) ( (W m_bx)_c - m'_bcx )^2

    Args:
        student_channels: C_s of each stage.
        teacher_channels: C_t of each stage.
        generator: draws W [C_t, C_s], uniform in +-0.005; there is no bias.

    Where heights or widths differ, the larger map is averaged down to the smaller one (adaptive
    average pooling). The paper trains on one hint first; here, as in embedding transfer, the sum
    over stages stands beside another loss.
    """

    def __init__(
        self,
        *,
        student_channels: tuple[int, ...],
        teacher_channels: tuple[int, ...],
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        channels = zip(student_channels, teacher_channels, strict=True)
        self.weights = nn.ParameterList(
            torch.empty(outputs, inputs, 1, 1).uniform_(-0.005, 0.005, generator=generator)
            for inputs, outputs in channels
        )

    def forward(
        self,
        student: Tensor,
        teacher: Tensor,
        *,
        student_maps: Sequence[Tensor],
        teacher_maps: Sequence[Tensor],
    ) -> Tensor:
        """Return the loss of maps [B, C, H, W], one of each model a stage; vectors are not used."""
        stages = zip(self.weights, student_maps, teacher_maps, strict=True)
        return torch.stack([_difference(*stage) for stage in stages]).sum()


def _difference(weight: Tensor, student: Tensor, teacher: Tensor) -> Tensor:
    student, teacher = match_size(*match_precision(student, teacher))
    return F.mse_loss(F.conv2d(student, weight), teacher)
