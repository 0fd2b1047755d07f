"""Chen, Wang, Zhang, DarkRank: Accelerating Deep Metric Learning ..., AAAI 2018."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.settings import Positive
from mltool.transfers._vectors import distances, match_precision

INPUT = "unit"
NEEDS: set[str] = set()


def darkrank(
    student: Tensor,
    teacher: Tensor,
    *,
    alpha: Positive = 3.0,
    beta: Positive = 3.0,
    length: int | None = 4,
) -> Tensor:
    """Maximise the likelihood, by the student's distances, of the teacher's ranking of neighbours.

    mean_a -sum_x ( S_ax - log sum_(y in V(a, x)) e^(S_ay) ), S_ax = -alpha d_ax^beta

    Args:
        student: [n, D_s]; d are the distances of its vectors at unit length.
        teacher: [n, D_t]; V(a, x) are the ranked items that are no nearer to a than x.
        alpha: steepness of the scores.
        beta: power of the distances.
        length: how many of the teacher's nearest neighbours of a are ranked (the "hard" form);
            none ranks all. The anchor itself is never among them.

    With alpha = 0.5, beta = 2 the scores are cosines but for a constant that cancels, and with
    length = none the loss is that of the asymmetric metric learning paper's overview.
    """
    student, teacher = match_precision(student, teacher)
    n = len(student)
    count = n - 1 if length is None else min(length, n - 1)
    # the anchor goes last; its duplicates stay among the nearest
    ranked, items = distances(F.normalize(teacher)).fill_diagonal_(torch.inf).sort(stable=True)
    ranked, items = ranked[:, :count].contiguous(), items[:, :count]
    scores = -alpha * distances(F.normalize(student)).gather(1, items).pow(beta)
    no_nearer = scores.flip(1).logcumsumexp(dim=1).flip(1)
    first_equal = torch.searchsorted(ranked, ranked)  # items at the same distance share their V
    return (no_nearer.gather(1, first_equal) - scores).sum(dim=1).mean()
