"""Duan et al., SLADE: A Self-Training Framework for Distance Metric Learning, CVPR 2021.

No code of the authors is public. Equations 4 to 6 are on the authors' slides or follow from them;
what neither paper nor slides settle is a setting whose default is that of the only public module
(an unofficial one, which names section and equation of every step).

Two images with pseudo-labels are alike if they respond alike to all labelled classes. With two
labelled classes, W = [[1, 0], [0, 1]] and embeddings that are the responses:

>>> basis = Slade(classes=2, dim=2, steps=1000)
>>> basis.vectors.data = torch.eye(2)
>>> basis.score(torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0]])).tolist()
[[1.0, 1.0, 0.0], [1.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
"""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.losses import Pairs
from mltool.settings import Fraction, Positive

_EQUAL, _DIFFERENT = 0, 1  # rows of the statistics


class Slade(nn.Module):
    """One vector per labelled class; pairs of other images are scored by their responses to all.

    s_ij = cos(W f_i, W f_j); weight (CE(W f, y) + distribution SD),
    SD = [mu- - mu+ + margin]+ + variance (v+ + v-); pulled: s_ij >= mu+, pushed: s_ij <= mu-

    Args:
        classes: labelled ones, the rows of W. They start as N(0, 1 / dim).
        dim: length of an embedding f.
        steps: of the run.
        weight: lambda2 of Eq. 9, which brings the terms to one magnitude (0.25 in the module).
        warmup: steps at the start in which W learns alone, a tenth of the run at most; none = 0.
            The paper says "a few", the module 100.
        distribution: what SD counts beside the cross-entropy; 1 in Eq. 2, 0 = without it.
        margin: m of Eq. 5; unpublished, 0.5 in the module.
        variance: lambda of Eq. 5; unpublished, 1 in the module.
        momentum: beta of Eq. 6, of the running value; 0.99 in the module.
        gradient: of the blend of Eq. 6. `damped` is literal: only 1 - momentum of it arrives, so
            that the cross-entropy is all that moves W. `full` has the same value and the gradient
            of the batch's statistics. The paper does not say which (full is the default here).
        mining: `score` as above (Eq. 7, T1 = mu+ and T2 = mu-, as in the module); `agree` asks for
            pseudo-labels that say the same, which the paper leaves open; `none` leaves all pairs to
            the pseudo-labels.

    mu and v are mean and variance (divided by n) of the scores of pairs with equal and with
    different pseudo-labels: every pair once, no image with itself or with its repetition in the
    batch, whose score of 1 would lift T1 above nearly all true pairs. Either side begins with its
    first batch and keeps its value in batches without such a pair. Until both have begun SD has no
    hinge, and as long as mu+ <= mu- nothing is mined.
    """

    statistics: Tensor  # [2, 2] rows: equal, different pseudo-labels; columns: mean, variance
    batches: Tensor  # [2] how many batches either side was taken from

    def __init__(
        self,
        *,
        classes: int,
        dim: int,
        steps: int,
        weight: Positive = 0.25,
        warmup: int | None = 100,
        distribution: Fraction = 1.0,
        margin: float = 0.5,
        variance: Positive = 1.0,
        momentum: Fraction = 0.99,
        gradient: Literal["full", "damped"] = "full",
        mining: Literal["score", "agree", "none"] = "score",
    ) -> None:
        super().__init__()
        self.weight = weight
        self.warmup = min(warmup or 0, steps // 10)
        self.distribution = distribution
        self.margin = margin
        self.variance = variance
        self.momentum = momentum
        self.gradient = gradient
        self.mining = mining
        self.vectors = nn.Parameter(torch.randn(classes, dim) / dim**0.5)
        self.register_buffer("statistics", torch.zeros(2, 2))
        self.register_buffer("batches", torch.zeros(2, dtype=torch.int64))

    def classify(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return the cross-entropy [L] of labelled embeddings [L, D], without a bias (Eq. 3)."""
        return functional.cross_entropy(self._respond(vectors), labels, reduction="none")

    def score(self, vectors: Tensor) -> Tensor:
        """Return the cosine of the responses of all pairs of embeddings [U, D], [U, U] (Eq. 4)."""
        responses = functional.normalize(self._respond(vectors))
        return responses @ responses.T

    def separate(self, vectors: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Return the similarity-distribution loss (Eq. 5), and renew the statistics (Eq. 6).

        The embeddings [U, D] have pseudo-labels [U], -1 = none; equal `rows` [U] are one image.
        """
        statistics = self._follow(*describe_pairs(self.score(vectors), labels, rows))
        mean, variance = statistics.T
        hinge = (mean[_DIFFERENT] - mean[_EQUAL] + self.margin).relu()
        has_both = (self.batches > 0).all()
        spread = self.variance * variance.sum()
        return self.distribution * (torch.where(has_both, hinge, 0) + spread)

    @torch.no_grad()
    def select(self, pairs: Pairs, vectors: Tensor) -> Pairs:
        """Keep the pairs [U, U] of embeddings [U, D] whose score says enough (Eq. 7).

        The weights of images stay: a pair weighs what its anchor does.
        """
        if self.mining == "none":
            return pairs
        scores, mean = self.score(vectors), self.statistics[:, 0]
        pos, neg = pairs.pos, pairs.neg
        if self.mining == "score":
            pos = neg = pairs.pos + pairs.neg
        is_apart = (self.batches > 0).all() & (mean[_EQUAL] > mean[_DIFFERENT])
        return pairs._replace(
            pos=pos * (scores >= mean[_EQUAL]) * is_apart,
            neg=neg * (scores <= mean[_DIFFERENT]) * is_apart,
        )

    def summary(self) -> str:
        """Describe the running statistics."""
        equal, different = self.statistics[:, 0].tolist()
        note = "; nothing is mined" if self.mining != "none" and equal <= different else ""
        return f"mean score {equal:.3f} in pseudo-classes, {different:.3f} between them{note}"

    def _respond(self, vectors: Tensor) -> Tensor:
        return vectors.to(self.vectors.dtype) @ self.vectors.T

    def _follow(self, batch: Tensor, exists: Tensor) -> Tensor:
        """Blend statistics [2, 2] of a batch into the running ones, on the sides that exist [2]."""
        blend = (1 - self.momentum) * batch + self.momentum * self.statistics
        begun, exists = (self.batches > 0)[:, None], exists[:, None]
        value = torch.where(exists, torch.where(begun, blend, batch), self.statistics)
        if self.gradient == "full":
            value = value.detach() + torch.where(exists, batch - batch.detach(), 0)
        self.statistics = value.detach()
        self.batches = self.batches + exists.squeeze(1)
        return value


def describe_pairs(scores: Tensor, labels: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return mean and variance [2, 2] of scores [U, U], of equal and of different labels [U].

    Pairs of equal `rows` [U] show one image and do not count. Also returned is whether there are
    such pairs [2]; a side without any has zeros.
    """
    exists = torch.ones_like(scores, dtype=torch.bool).triu(diagonal=1)
    exists &= (labels >= 0)[:, None] & (labels >= 0) & (rows[:, None] != rows)
    equal = labels[:, None] == labels
    masks = torch.stack([exists & equal, exists & ~equal])  # [2, U, U]
    counts = masks.sum(dim=(1, 2))
    mean = (scores * masks).sum(dim=(1, 2)) / counts.clamp(min=1)
    deviation = (scores - mean[:, None, None]).square()
    variance = (deviation * masks).sum(dim=(1, 2)) / counts.clamp(min=1)
    return torch.stack([mean, variance], dim=1), counts > 0
