"""Pairs: how similar anchor and candidate are, how much to pull them, how much to push them.

Every formula of this folder is written with the few operations below. They share three rules:

* a pair of weight zero has no influence and no gradient;
* a weight multiplies its term, inside a log-sum-exp as + log w;
* a mean divides by the number of its terms, not by the sum of their weights, so that weights all
  scaled by lambda scale the loss.

Example, two anchors of classes 4 and 7 against candidates of classes 7, 4 and 4:

>>> sim = torch.tensor([[0.1, 0.9, 0.3], [0.8, 0.2, 0.4]])
>>> pairs = pairs_from_labels(sim, torch.tensor([4, 7]), torch.tensor([7, 4, 4]))
>>> pairs.pos.tolist()
[[0.0, 1.0, 1.0], [1.0, 0.0, 0.0]]
>>> pairs.neg.tolist()
[[1.0, 0.0, 0.0], [0.0, 1.0, 1.0]]
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import BackwardCFunction, FunctionCtx, once_differentiable


class Pairs(NamedTuple):
    """All pairs of A anchors and B candidates; both weights zero = the pair does not exist."""

    sim: Tensor  # [A, B] cosine similarity, larger = closer, float32
    pos: Tensor  # [A, B] weight >= 0 of the pull
    neg: Tensor  # [A, B] weight >= 0 of the push; may overlap pos


def pairs_from_labels(
    sim: Tensor,
    anchor_labels: Tensor,
    candidate_labels: Tensor,
    *,
    exclude: Tensor | None = None,
) -> Pairs:
    """Build pairs from class labels: equal labels are pulled, different ones pushed.

    Args:
        sim: [A, B] cosine similarities; half precision is widened to float32.
        anchor_labels: [A] class indices; -1 = unknown, which pairs with nothing.
        candidate_labels: [B] likewise; for one proxy per class it is `arange(classes)`.
        exclude: [A, B] bool, True where a candidate is the anchor itself (or padding). A batch
            against itself passes the diagonal.
    """
    exists = (anchor_labels >= 0)[:, None] & (candidate_labels >= 0)[None, :]
    if exclude is not None:
        exists &= ~exclude
    same = (anchor_labels[:, None] == candidate_labels[None, :]).logical_and_(exists)
    if sim.dtype in (torch.float16, torch.bfloat16):
        sim = sim.float()
    pos = same.to(sim.dtype)
    return Pairs(sim, pos, exists.to(sim.dtype).sub_(pos))


def distance(sim: Tensor) -> Tensor:
    """Return the Euclidean distance of unit vectors, any shape.

    The distance is flat below 1e-4, where its slope would be infinite.
    """
    return root(2 - 2 * sim)


def root(square: Tensor) -> Tensor:
    """Return the square root, any shape, of an argument held above 1e-8: its slope is finite."""
    # float16 rounds 1e-8 to zero, so its smallest normal number is the bound
    return square.clamp(min=max(1e-8, torch.finfo(square.dtype).tiny)).sqrt()


def log_sum_exp(x: Tensor, weight: Tensor) -> Tensor:
    """Return `log(sum_j weight_ij exp(x_ij))` per row, [A, B] -> [A].

    A row without weights gives a large negative number, because the gradient of -inf is NaN. The
    weights get no gradient.
    """
    return _LogSumExp.apply(x, weight)


class _LogSumExp(torch.autograd.Function):
    """`log_sum_exp` in one matrix of memory, without the slow logarithms of zero weights."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor) -> Tensor:
        value, share = _value_and_share(x, weight)
        ctx.save_for_backward(share)
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None]:
        (share,) = ctx.saved_tensors
        return gradient[:, None] * share, None


def log_odds(x: Tensor, pairs: Pairs) -> Tensor:
    """Return `log_sum_exp(x, neg) - log_sum_exp(x, pos)` per row, [A, B] -> [A]."""
    return _LogOdds.apply(x, pairs.pos, pairs.neg)


class _LogOdds(torch.autograd.Function):
    """`log_odds`, keeping one matrix for both sums."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, pos: Tensor, neg: Tensor) -> Tensor:
        pulled, share_of_pos = _value_and_share(x, pos)
        pushed, share = _value_and_share(x, neg)
        ctx.save_for_backward(share.sub_(share_of_pos))
        return pushed - pulled

    @staticmethod
    @once_differentiable
    def backward(ctx: BackwardCFunction, gradient: Tensor) -> tuple[Tensor, None, None]:
        (share,) = ctx.saved_tensors
        return gradient[:, None] * share, None, None


def _value_and_share(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the log-sum-exp [A] and its gradient [A, B], the share of each entry in the sum."""
    floor = torch.finfo(x.dtype).min / 2
    share = x.masked_fill(weight <= 0, floor)
    top = share.amax(dim=1, keepdim=True)
    # exp is many times slower where it underflows; below -87 nothing adds to a float32
    share.sub_(top).clamp_(min=-87).exp_().mul_(weight)
    total = share.sum(dim=1, keepdim=True)
    exists = total > 0
    value = torch.where(exists, top + total.log(), floor).squeeze(1)
    return value, share.div_(torch.where(exists, total, 1))


def log_one_plus_sum_exp(x: Tensor, weight: Tensor) -> Tensor:
    """Return `log(1 + sum_j weight_ij exp(x_ij))` per row, [A, B] -> [A]; 0 without weights."""
    return F.softplus(log_sum_exp(x, weight))


def softmax_loss(logits: Tensor, pairs: Pairs, *, margin: float = 0.0) -> Tensor:
    """Return `-log(P / (P + N))` per row, [A]; 0 for a row without positives.

    P = sum pos exp(logits - margin), N = sum neg exp(logits)

    Args:
        logits: [A, B].
        pairs: [A, B]; only the weights are read.
        margin: subtracted from the logits of the positives.
    """
    odds = log_odds(logits, pairs) + margin
    return torch.where(has_any(pairs.pos), F.softplus(odds), 0)


def has_any(weight: Tensor) -> Tensor:
    """Return whether each row has a weight above zero, [A, B] -> [A] bool."""
    return (weight > 0).any(dim=1)


def row_mean(terms: Tensor, weight: Tensor) -> Tensor:
    """Return each row's mean weighted term over its pairs of non-zero weight, [A, B] -> [A]."""
    return (weight * terms).sum(dim=1) / weight.sign().sum(dim=1).clamp(min=1)


def mean_over(terms: Tensor, counted: Tensor) -> Tensor:
    """Return the sum of all terms divided by the number of non-zeros of `counted`; 0 if none."""
    return terms.sum() / counted.count_nonzero().clamp(min=1)
