"""Park, Kim, Lu, Cho, Relational Knowledge Distillation, CVPR 2019."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mltool.transfers._vectors import distances, match_precision

INPUT = "raw"
NEEDS: set[str] = set()

_CHUNK_BYTES = 2**28  # of edges and angles at the vertices that are worked on at once


def rkd(student: Tensor, teacher: Tensor, *, distance: float = 1.0, angle: float = 2.0) -> Tensor:
    """Match the teacher's distances of pairs and angles of triplets.

    distance mean_ij h(d_ij / mu, d'_ij / mu') + angle mean_ijk h(cos a_ijk, cos a'_ijk), h = smooth
    L1, a_ijk = angle at i between j and k

    Args:
        student: [n, D_s], of any length.
        teacher: [n, D_t], likewise (d', a').
        distance: weight; mu is the mean distance of different items, one number for each side,
            and passes gradients. The mean of the loss counts the diagonal.
        angle: weight; 0 leaves the term out. An angle with a side of no length counts as cosine 0.

    Neither term changes when either side is moved, turned or scaled. The angles need work and
    memory n^3; beyond 256 MiB they are computed vertex by vertex, and again for the backward.
    """
    student, teacher = match_precision(student, teacher)
    value = distance * F.smooth_l1_loss(_relative(student), _relative(teacher))
    return value + angle * _angle_loss(student, teacher) if angle else value


def _relative(vectors: Tensor) -> Tensor:
    """Return the distances [n, n] divided by their mean off the diagonal."""
    dist, n = distances(vectors), len(vectors)
    return dist / (dist.sum() / max(n * (n - 1), 1)).clamp(min=1e-12)  # 0 / 0 if n is 1


def _angle_loss(student: Tensor, teacher: Tensor) -> Tensor:
    n = len(student)
    per_vertex = n * (student.shape[1] + teacher.shape[1] + 2 * n) * student.element_size()
    step = max(_CHUNK_BYTES // per_vertex, 1)
    sums = [
        checkpoint(
            _difference, student, teacher, vertices, use_reentrant=False, preserve_rng_state=False
        )
        for vertices in torch.arange(n, device=student.device).split(step)
    ]
    return torch.stack(sums).sum() / n**3


def _difference(student: Tensor, teacher: Tensor, vertices: Tensor) -> Tensor:
    """Sum smooth L1 over all angles at `vertices` [V]."""
    return F.smooth_l1_loss(
        _cosines(student, vertices), _cosines(teacher, vertices), reduction="sum"
    )


def _cosines(vectors: Tensor, vertices: Tensor) -> Tensor:
    """Return the cosines of the angles at `vertices` [V] between all pairs of rows, [V, n, n]."""
    edges = vectors - vectors[vertices, None]  # [V, n, D]
    length = torch.linalg.vector_norm(edges, dim=2, keepdim=True)
    # the direction of an edge without length would have a gradient of 1e12
    directions = edges / torch.where(length > 1e-6, length, torch.inf)
    return directions @ directions.mT
