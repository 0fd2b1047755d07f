"""Cakir, He, Xia, Kulis, Sclaroff, Deep Metric Learning to Rank, CVPR 2019."""

import torch
from torch import Tensor

from mltool.losses._pairs import Pairs

ANCHORS = "batch"
CANDIDATES = "batch"


def fastap(pairs: Pairs, *, bins: int = 10) -> Tensor:
    """Maximise the average precision of each anchor, ranks being bins of a soft histogram.

    mean_a ( 1 - (1 / N+) sum_l h+_l H+_l / H_l )

    Args:
        pairs: [A, B]; N+ is the sum of the positive weights.
        bins: L; h+ and h count positives and all pairs in L + 1 triangular bins of the squared
            distance in [0, 4], H+ and H are their running sums.

    An anchor without positives adds 0; PML's FastAPLoss leaves it out of the mean. Best with large
    batches.
    """
    position = ((2 - 2 * pairs.sim) * (bins / 4)).clamp(0, bins)  # in bins, [A, B]
    left = position.detach().long().clamp(max=bins - 1)
    share = position - left  # of the bin to the right
    empty = position.new_zeros(len(position), bins + 1)
    right = left + 1

    def histogram(weight: Tensor) -> Tensor:
        lower = empty.scatter_add(1, left, weight * (1 - share))
        return lower.scatter_add(1, right, weight * share)

    # running sums by a product: cumsum has no deterministic form on CUDA
    running_sum = position.new_ones(bins + 1, bins + 1).triu()
    positives = histogram(pairs.pos)
    positives_so_far = positives @ running_sum
    pairs_so_far = positives_so_far + histogram(pairs.neg) @ running_sum
    # a bin before the first pair is 0 / 0; the inner where keeps its gradient finite
    precision = positives * positives_so_far / torch.where(pairs_so_far > 0, pairs_so_far, 1)
    total = pairs.pos.sum(dim=1)
    average = precision.sum(dim=1) / torch.where(total > 0, total, 1)
    return torch.where(total > 0, 1 - average, 0).mean()
