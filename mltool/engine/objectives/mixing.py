"""Metrix: each anchor gets mixed examples as candidates of its own, and the loss stays the same.

Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from mltool import distributed
from mltool.engine.loop import Embed
from mltool.engine.objectives.pair_loss import Side, Term
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models.stages import StageHook

ITSELF = -1  # in place of a column: the anchor
SHORTEST = 1e-3  # a mix of opposites is nothing but rounding; it counts as this long


class Mixture(NamedTuple):
    """Up to K mixed examples of each of A anchors; padding has no weight."""

    first: Tensor  # [A, K] column of the one example, or ITSELF
    second: Tensor  # [A, K] column of the other
    share: Tensor  # [A, K] lambda, of the first
    pos: Tensor  # [A, K]
    neg: Tensor  # [A, K]


class _Choice(NamedTuple):
    """Columns in the order in which they are wanted: in each row the first `size` are there."""

    columns: Tensor  # [A, B]
    size: Tensor  # [A]


def draw(pairs: Pairs, mixup: Mixup, *, own: Tensor | None, generator: Generator) -> Mixture:
    """Choose what is mixed, and how much of it.

    pos = lambda y + (1 - lambda) y', neg likewise, where y and y' are the weights that `pairs`
    gives the two examples: labels, mined pairs and weights of images all count. The anchor itself
    is a positive of weight `own` [A] (None: one). All draws come from `generator`, on the CPU.
    """
    kind = mixup.kinds[_integer(len(mixup.kinds), generator)]
    key = torch.rand(pairs.sim.shape, generator=generator).to(pairs.sim.device)
    positives = _ordered(pairs.pos, key)
    negatives = _ordered(pairs.neg, pairs.sim.detach() if mixup.negatives == "hardest" else key)
    itself = _Choice(
        torch.full_like(negatives.columns[:, :1], ITSELF), torch.ones_like(negatives.size)
    )
    first = {"neg-neg": negatives, "anchor-neg": itself}.get(kind, positives)
    second = positives if kind == "pos-pos" else negatives
    columns, exists = _combined(first, second, mixup.per_anchor)
    share = _shares(mixup, exists, generator).to(pairs.sim)
    own = torch.ones_like(pairs.sim[:, 0]) if own is None else own

    def mixed(weight: Tensor, of_itself: Tensor) -> Tensor:
        of_first = weight.gather(1, columns[0].clamp(min=0))
        of_first = torch.where(columns[0] == ITSELF, of_itself[:, None], of_first)
        return (share * of_first + (1 - share) * weight.gather(1, columns[1])) * exists

    return Mixture(*columns, share, mixed(pairs.pos, own), mixed(pairs.neg, torch.zeros_like(own)))


def _integer(end: int, generator: Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def _ordered(weight: Tensor, key: Tensor) -> _Choice:
    """The columns with a weight, those of the largest keys first."""
    order = key.masked_fill(weight <= 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return _Choice(order, (weight > 0).sum(dim=1))


def _combined(
    first: _Choice, second: _Choice, most: int | None
) -> tuple[tuple[Tensor, Tensor], Tensor]:
    """((columns of the first, of the second) [A, K], which of them exist [A, K] bool).

    The second runs through its columns, the first through its own beside it, one further on each
    round: all combinations come up once before any comes twice. One that is chosen from itself
    starts one further on, so never meets itself, and ends where it would meet others again.
    """
    further = int(first is second)
    there, others = (choice.size.clamp(min=1)[:, None] for choice in (second, first))
    total = second.size * (first.size - further).clamp(min=0) // (1 + further)
    largest = max(1, int(total.max()))
    number = torch.arange(min(most or largest, largest), device=total.device)
    at = number % there
    beside = (at + number // there + further) % others
    columns = first.columns.gather(1, beside), second.columns.gather(1, at)
    return columns, number < total[:, None]


def _shares(mixup: Mixup, like: Tensor, generator: Generator) -> Tensor:
    """lambda ~ Beta(alpha, alpha), [A, K]."""
    random = np.random.default_rng(_integer(2**62, generator))
    size = like.shape if mixup.draw == "pair" else (1, 1)
    return torch.from_numpy(random.beta(mixup.alpha, mixup.alpha, size)).expand(like.shape)


def of_vectors(mixture: Mixture, sim: Tensor, candidates: Tensor) -> Pairs:
    """Pairs of anchors and mixes of the candidates, vectors [B, D] of unit length.

    With s the similarities `sim` [A, B], and s_xx' that of the two examples,

    s(a, v) = (lambda s_ax + (1 - lambda) s_ax') / |v|,
    |v|^2 = lambda^2 + (1 - lambda)^2 + 2 lambda (1 - lambda) s_xx'

    so that no mixed vector is ever made: the work is one more matrix of similarities, the memory
    A x K.
    """
    first, second, share = mixture[:3]
    is_anchor = first == ITSELF
    to_second = sim.gather(1, second)
    to_first = torch.where(is_anchor, 1, sim.gather(1, first.clamp(min=0)))
    rows, place = first.clamp(min=0).unique(return_inverse=True)
    between = (candidates[rows] @ candidates.T)[place, second]
    between = torch.where(is_anchor, to_second, between)
    square = share.square() + (1 - share).square() + 2 * share * (1 - share) * between
    length = square.clamp(min=SHORTEST**2).sqrt()
    mixed = (share * to_first + (1 - share) * to_second) / length
    return Pairs(mixed, mixture.pos, mixture.neg)


@dataclass(frozen=True)
class Originals:
    """The images or maps of a step, of all ranks, and the way from mixed ones to vectors."""

    rows: Tensor  # [B, ...]
    stage: str
    blank: Tensor  # [1, 3, H, W], any image of the right size
    model: Embed

    def mixed(self, first: Tensor, second: Tensor, share: Tensor) -> Tensor:
        """Vectors [M, D] of unit length, of M mixes of rows; each rank makes its part of them."""
        part = max(2, -(-len(first) // distributed.world()))  # one row has no batch statistics
        start = part * distributed.rank()
        mine = torch.arange(start, start + part, device=first.device) % len(first)
        share = share[mine].reshape(-1, *[1] * (self.rows.ndim - 1))
        one, other = self.rows[first[mine]].float(), self.rows[second[mine]].float()
        values = share * one + (1 - share) * other
        if self.rows.is_floating_point():
            values = values.to(self.rows.dtype)
        vectors = self.model(self.blank, tap=StageHook(self.stage, replacement=values))
        return functional.normalize(distributed.gather(vectors)[: len(first)])


def of_originals(mixture: Mixture, anchors: Tensor, originals: Originals) -> Pairs:
    """Pairs of `anchors` [A, D], of unit length, and what the model makes of mixed originals.

    The anchors' own rows are the first A of the originals, where a mixture asks for them.
    """
    used = mixture.pos + mixture.neg > 0
    of, place = used.nonzero(as_tuple=True)
    sim = torch.zeros_like(mixture.pos)
    if len(of):
        first = mixture.first[of, place]
        first = torch.where(first == ITSELF, of, first)
        vectors = originals.mixed(first, mixture.second[of, place], mixture.share[of, place])
        sim = sim.index_put((of, place), (anchors[of] * vectors).sum(dim=1))
    return Pairs(sim, mixture.pos, mixture.neg)


def realised(
    mixture: Mixture, pairs: Pairs, anchors: Side, candidates: Side, originals: Originals | None
) -> Pairs:
    """The pairs of a mixture: of embeddings, or of the originals where there are some.

    `pairs` are the clean ones [A, B] of `anchors` and `candidates`.
    """
    if originals is None:
        return of_vectors(mixture, pairs.sim, candidates.vectors)
    return of_originals(mixture, anchors.vectors, originals)


def cost(mixture: Mixture, originals: Originals | None) -> str:
    """What the mixed examples of a step take, in words."""
    count = int((mixture.pos + mixture.neg > 0).sum())
    if originals is None:
        return f"mixup: {count} mixed embeddings in the first step, {4e-6 * count:.2f} MB"
    each = originals.rows[0]
    size = count * each.numel() * max(4, each.element_size())
    shape = " x ".join(map(str, each.shape))
    return (
        f"mixup: {count} passes from stage {originals.stage} on in the first step, "
        f"{size / 1e6:.1f} MB of {shape}"
    )


def why_not(term: Term, mixup: Mixup) -> str:
    """Why a term has no mixed examples of this kind, or an empty string."""
    if reason := term.why_fixed():
        return reason
    if term.has_groups:
        return f"{term.name} takes several proxies of a class together, not mixes of them"
    if mixup.stage is not None and term.sides[1] == "proxies":
        return f"the candidates of {term.name} are proxies, which only --mixup embedding can mix"
    if mixup.stage is not None and term.sides[0] == "proxies" and "anchor-neg" in mixup.kinds:
        return (
            f"the anchors of {term.name} are proxies; only --mixup embedding mixes one with images"
        )
    for kind in mixup.kinds:
        if not _moves(term, mixup, kind):
            other = (
                "other pairs" if kind in ("pos-pos", "neg-neg") else "more per_anchor, draw=pair"
            )
            return f"{term.name} has no gradient for these {kind} mixes; try {other}"
    return ""


def _moves(term: Term, mixup: Mixup, kind: str) -> bool:
    """Whether a loss has a gradient for made-up similarities to mixed examples.

    Where a loss compares the positives of an anchor with its negatives, a mixed example stands on
    both sides: a single one, or several with one lambda, can cancel out whatever the similarity.
    """
    anchors, count = 8, min(mixup.per_anchor or 4, 4)
    spread = torch.logspace(-2, 0.2, anchors)[:, None]  # sharp losses see small differences only
    # near 1 too, where a loss with a large margin alone acts
    sim = (1 - spread * torch.linspace(0, 1, count + 1)[1:]).requires_grad_()
    share = torch.linspace(0.1, 0.9, anchors * count).reshape(anchors, count)
    share = share if mixup.draw == "pair" else torch.full_like(share, 0.4)
    share = {"pos-pos": torch.ones_like(share), "neg-neg": torch.zeros_like(share)}.get(kind, share)
    labels = torch.zeros(anchors, dtype=torch.int64)
    with torch.enable_grad():
        value = term(Pairs(sim, share, 1 - share), Side(sim, labels)) / term.weight
        (gradient,) = torch.autograd.grad(value, sim)
    return bool(gradient.abs().max() > 1e-5)
