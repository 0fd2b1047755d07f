"""Wang, Zhou, Wen, Liu, Lin, Deep Metric Learning with Angular Loss, ICCV 2017."""

import math

import torch

from mltool.losses import Pairs

SQUARE = True


def angular(pairs: Pairs, *, angle: float = 20.0) -> Pairs:
    """Keep the pairs of triplets whose angle at the negative is too wide.

    keep (a, p) and (a, n) of every triplet with D_ap > 2 tan(angle) |n - (a + p) / 2|

    Args:
        pairs: [A, A], the batch against itself; the work is A x P x A, P being the most positives
            that one anchor has.
        angle: in degrees.

    PML's AngularMiner gives the triplets themselves.
    """
    sim = pairs.sim.detach()
    most = int((pairs.pos > 0).sum(dim=1).max())
    weight, column = pairs.pos.topk(most, dim=1)  # [A, P], padded with weight zero
    to_positive = sim.gather(1, column)[:, :, None]
    to_middle = 1.5 + 0.5 * to_positive - sim[:, None, :] - sim[column]  # squared, [A, P, A]
    wide = 2 - 2 * to_positive > 4 * math.tan(math.radians(angle)) ** 2 * to_middle
    wide &= (weight > 0)[:, :, None] & (pairs.neg > 0)[:, None, :]
    kept = torch.zeros_like(sim).scatter_add(1, column, wide.any(dim=2).to(sim.dtype))
    return pairs._replace(pos=pairs.pos * kept, neg=pairs.neg * wide.any(dim=1))
