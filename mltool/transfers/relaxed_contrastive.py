"""Kim et al., Embedding Transfer with Label Relaxation for Improved Metric Learning, CVPR 2021."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from mltool.settings import Positive
from mltool.transfers._vectors import distances, match_precision

INPUT = "raw"
NEEDS: set[str] = set()


def relaxed_contrastive(
    student: Tensor,
    teacher: Tensor,
    *,
    sigma: Positive = 1.0,
    delta: float = 1.0,
    normalizer: Literal["n", "pairs"] = "n",
) -> Tensor:
    """Pull and push relative distances, the teacher's similarity being a soft label.

    (1/n) sum_i sum_(j != i) ( w_ij r_ij^2 + (1 - w_ij) [delta - r_ij]+^2 ),
    r_ij = d_ij / ((1/n) sum_k d_ik), w_ij = e^(-|t_i - t_j|^2 / sigma)

    Args:
        student: [n, D_s], not normalised; d are its Euclidean distances.
        teacher: [n, D_t], normalised here to t.
        sigma: width of the soft label, in squared distance of unit vectors.
        delta: margin in mean distances.
        normalizer: `n` divides as above, so the value grows with the batch; `pairs` divides by
            n (n - 1), as the authors' later work does.

    The gradient passes through the mean distance, and the mean divides by n although the distance
    of an item to itself is 0. Hence the loss does not change with the scale of the student, and the
    trained student is compared by Euclidean distance. No labels; all views of a batch count alike.
    """
    student, teacher = match_precision(student, teacher)
    n = len(student)
    label = (distances(F.normalize(teacher)).square() / -sigma).exp()
    dist = distances(student)
    relative = dist / dist.mean(dim=1, keepdim=True).clamp(min=1e-12)  # 0 / 0 if n is 1
    terms = label * relative.square() + (1 - label) * (delta - relative).relu().square()
    # the diagonal adds 0: there the label is 1 and the distance 0
    return terms.sum() / (n if normalizer == "n" else max(n * (n - 1), 1))
