"""Random pairs: the baseline that a miner has to beat."""

import torch
from torch import Tensor

from mltool.losses import Pairs


def random(
    pairs: Pairs,
    *,
    generator: torch.Generator,
    positives: int | None = None,
    negatives: int | None = None,
) -> Pairs:
    """Keep random positives and negatives of each anchor, all equally likely.

    keep `positives` of the p and `negatives` of the n, without replacement

    Args:
        pairs: [A, B].
        generator: on the CPU.
        positives: kept for each anchor; all if none is given.
        negatives: kept for each anchor; as many as its positives if none is given.
    """
    pos = pairs.pos if positives is None else _keep_random(pairs.pos, positives, generator)
    count = (pos > 0).sum(dim=1) if negatives is None else negatives
    return pairs._replace(pos=pos, neg=_keep_random(pairs.neg, count, generator))


def _keep_random(weight: Tensor, count: Tensor | int, generator: torch.Generator) -> Tensor:
    """Keep at most `count` (for all rows, or [A]) of the weights [A, B] in each row."""
    keys = torch.rand(weight.shape, generator=generator).to(weight.device)
    order = keys.masked_fill(weight <= 0, 2).argsort(dim=1)
    ranks = torch.arange(weight.shape[1], device=weight.device).expand_as(order)
    kept = ranks < torch.as_tensor(count, device=weight.device).reshape(-1, 1)
    return weight * torch.zeros_like(weight).scatter(1, order, kept.to(weight.dtype))
