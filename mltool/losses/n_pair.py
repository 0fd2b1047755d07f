"""Sohn, Improved Deep Metric Learning with Multi-class N-pair Loss Objective, NeurIPS 2016."""

import torch
import torch.nn.functional as F
from torch import Tensor

INPUT = "vectors"


def n_pair(vectors: Tensor, labels: Tensor, *, norm_weight: float = 0.005) -> Tensor:
    """Rank the positive of one pair per class above the positives of all other classes.

    mean_i log(1 + sum_(j != i) e^(x_i . x_j+ - x_i . x_i+)) + norm_weight mean |x|^2

    Args:
        vectors: [N, D], not normalised; half precision is widened to float32.
        labels: [N] class indices, -1 = unknown. The first two rows of a class are its pair, the
            others count only in the norm; sample two images per class.
        norm_weight: keeps the vectors short.

    PML's NPairsLoss normalises the vectors by default and has no norm term.
    """
    if vectors.dtype in (torch.float16, torch.bfloat16):
        vectors = vectors.float()
    order = labels.argsort(stable=True)
    ordered = labels[order]
    starts = torch.ones_like(ordered, dtype=torch.bool)
    starts[1:] = ordered[1:] != ordered[:-1]
    paired = starts[:-1] & ~starts[1:] & (ordered[:-1] >= 0)
    anchors, positives = vectors[order[:-1][paired]], vectors[order[1:][paired]]
    logits = anchors @ positives.T
    diagonal = torch.arange(len(logits), device=labels.device)  # each anchor's positive
    cross_entropy = F.cross_entropy(logits, diagonal, reduction="sum") / max(len(logits), 1)
    return cross_entropy + norm_weight * vectors.square().sum(dim=1).mean()
