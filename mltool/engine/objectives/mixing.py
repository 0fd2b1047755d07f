"""Metrix: each anchor gets mixed examples as candidates of its own, and the loss stays the same.

Venkataramanan et al., It Takes Two to Tango: Mixup for Deep Metric Learning, ICLR 2022.

Take one anchor of class 0 and candidates of classes 0, 1, 2, 0. Columns 0 and 3 are its positives,
1 and 2 its negatives. With `pairs=pos-neg` a positive is mixed with a negative; let the positives
come in the random order 3, 0, and the negatives, the hardest first, in the order 2, 1:

>>> positives = Columns(torch.tensor([[3, 0, 1, 2]]), torch.tensor([2]))
>>> negatives = Columns(torch.tensor([[2, 1, 0, 3]]), torch.tensor([2]))
>>> first, second, exists = combine(positives, negatives, most=None)
>>> list(zip(first[0].tolist(), second[0].tolist()))
[(3, 2), (0, 1), (0, 2), (3, 1)]

Every one of them has a lambda of its own; with lambda = 0.7 the mix of columns 3 and 2 is a
candidate with pos = 0.7 x 1 + 0.3 x 0 and neg = 0.7 x 0 + 0.3 x 1. Embeddings are never mixed in
memory: similarities follow from those to the two examples (`compare_embeddings`). Images and
feature maps are, and go through the rest of the model (`compare_inputs`).
"""

import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import Generator, Tensor
from torch.nn import functional

from mltool import distributed
from mltool.engine.loop import Embed
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.pair_loss import PairTerm
from mltool.engine.objectives.step_outputs import BatchSide, Comparison, StepOutputs
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models.stages import StageHook

logger = logging.getLogger(__name__)

ITSELF = -1  # instead of a column: the anchor
SHORTEST = 1e-3  # a mix of opposites is nothing but rounding; it counts as this long


class Mixture(NamedTuple):
    """Up to K mixed examples of each of A anchors; padding has no weight."""

    first: Tensor  # [A, K] column of the one example, or ITSELF
    second: Tensor  # [A, K] column of the other
    lam: Tensor  # [A, K] lambda, of the first
    pos: Tensor  # [A, K]
    neg: Tensor  # [A, K]


class Columns(NamedTuple):
    """Candidate columns of each anchor, best first; only the first `size[a]` of row a are valid."""

    columns: Tensor  # [A, B]
    size: Tensor  # [A]


class MixedTerm(Term):
    """The loss of a pair term against mixed examples, drawn among the pairs that it has kept."""

    def __init__(self, of: PairTerm, mixup: Mixup) -> None:
        super().__init__(f"{of.name}/mixed", stream=of.stream)
        self.mixup, self.stage = mixup, mixup.stage
        self._of = (of,)  # a tuple, so that the loss is not saved here once more

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted loss; the first step logs what mixing costs."""
        (of,) = self._of
        comparison = step.comparisons[of.name]
        mixture = draw_mixture(comparison, self.mixup, generator=step.generator)
        inputs = None
        if self.stage is not None:
            blank = step.batch.stack_inputs()[:1]
            inputs = MixInputs(step.stage_inputs, self.stage, blank, step.model)
        if step.moment.step == 0:
            logger.info(describe_cost(mixture, inputs))
        pairs = build_mixed_pairs(mixture, comparison, inputs)
        return {self.name: self.mixup.weight * of.weigh(pairs, comparison.anchors)}

    def incompatibility(self) -> str:
        """Return why mixed examples of this kind teach nothing, or an empty string."""
        (of,) = self._of
        for kind in self.mixup.kinds:
            if not has_gradient(of, self.mixup, kind):
                same_side = kind in ("pos-pos", "neg-neg")
                remedy = "other pairs" if same_side else "more per_anchor, draw=pair"
                return f"{of.name} has no gradient for these {kind} mixes; try {remedy}"
        return ""


def draw_mixture(comparison: Comparison, mixup: Mixup, *, generator: Generator) -> Mixture:
    """Draw what is mixed, and how much of it.

    pos = lambda y + (1 - lambda) y', neg likewise, where y and y' are the weights that the pairs
    give the two examples: labels, mined pairs and weights of images all count. Mixed with a
    negative, the anchor itself is a positive of the weight that its image has. All draws come from
    `generator`, on the CPU, so that they are the same on every device.
    """
    pairs, weights = comparison.pairs, comparison.anchors.weights
    kind = mixup.kinds[_draw_integer(len(mixup.kinds), generator)]
    key = torch.rand(pairs.sim.shape, generator=generator).to(pairs.sim.device)
    positives = _order(pairs.pos, key)
    negatives = _order(pairs.neg, pairs.sim.detach() if mixup.negatives == "hardest" else key)
    if kind == "anchor-neg":
        first = _anchor_columns(comparison)
    else:
        first = negatives if kind == "neg-neg" else positives
    second = positives if kind == "pos-pos" else negatives
    first_columns, second_columns, exists = combine(first, second, most=mixup.per_anchor)
    lam = _draw_lambda(mixup, exists, generator).to(pairs.sim)

    def mix(weight: Tensor, of_anchor: Tensor) -> Tensor:
        of_first = weight.gather(1, first_columns.clamp(min=0))
        of_first = of_anchor[:, None] if kind == "anchor-neg" else of_first
        return (lam * of_first + (1 - lam) * weight.gather(1, second_columns)) * exists

    of_anchor = torch.ones_like(pairs.sim[:, 0]) if weights is None else weights
    pos = mix(pairs.pos, of_anchor)
    neg = mix(pairs.neg, torch.zeros_like(of_anchor))
    return Mixture(first_columns, second_columns, lam, pos, neg)


def _anchor_columns(comparison: Comparison) -> Columns:
    """Return the anchor as the one example: its own vector of the teacher, or the anchor itself."""
    sim, columns = comparison.pairs.sim, comparison.self_columns
    if columns is None:
        columns = torch.full_like(sim[:, 0], ITSELF, dtype=torch.int64)
    return Columns(columns[:, None], torch.ones_like(columns))


def _draw_integer(end: int, generator: Generator) -> int:
    return int(torch.randint(end, (), generator=generator))


def _order(weight: Tensor, key: Tensor) -> Columns:
    """Order the columns that have a weight by their keys [A, B], the largest first."""
    order = key.masked_fill(weight <= 0, -torch.inf).argsort(dim=1, descending=True, stable=True)
    return Columns(order, (weight > 0).sum(dim=1))


def combine(first: Columns, second: Columns, *, most: int | None) -> tuple[Tensor, Tensor, Tensor]:
    """Enumerate (first, second) pairs of columns, at most `most` an anchor: [A, K] each.

    With n1 columns of the first and n2 of the second the k-th pair is

    second[k mod n2], first[(k mod n2 + k div n2 + s) mod n1]

    so that all combinations come once before any comes twice. Both being the same list, s = 1
    skips (i, i), and the enumeration ends after n (n - 1) / 2 pairs, before (j, i) repeats (i, j).
    Elsewhere s = 0. The third result tells which pairs exist.
    """
    shift = int(first is second)
    n_second, n_first = (each.size.clamp(min=1)[:, None] for each in (second, first))
    total = second.size * (first.size - shift).clamp(min=0) // (1 + shift)
    largest = max(1, int(total.max()))
    k = torch.arange(min(most or largest, largest), device=total.device)
    at_second = k % n_second
    at_first = (at_second + k // n_second + shift) % n_first
    exists = k < total[:, None]
    return first.columns.gather(1, at_first), second.columns.gather(1, at_second), exists


def _draw_lambda(mixup: Mixup, like: Tensor, generator: Generator) -> Tensor:
    """Draw lambda ~ Beta(alpha, alpha), [A, K]."""
    random = np.random.default_rng(_draw_integer(2**62, generator))
    size = like.shape if mixup.draw == "pair" else (1, 1)
    return torch.from_numpy(random.beta(mixup.alpha, mixup.alpha, size)).expand(like.shape)


def compare_embeddings(mixture: Mixture, sim: Tensor, candidates: Tensor) -> Pairs:
    """Build the pairs of anchors and mixes of the candidates, vectors [B, D] of unit length.

    With s the similarities `sim` [A, B], and s_xx' that of the two examples,

    s(a, v) = (lambda s_ax + (1 - lambda) s_ax') / |v|,
    |v|^2 = lambda^2 + (1 - lambda)^2 + 2 lambda (1 - lambda) s_xx'

    so that no mixed vector is ever made: the work is one more matrix of similarities, the memory
    A x K.
    """
    first, second, lam = mixture[:3]
    is_anchor = first == ITSELF
    to_second = sim.gather(1, second)
    to_first = torch.where(is_anchor, 1, sim.gather(1, first.clamp(min=0)))
    rows, index = first.clamp(min=0).unique(return_inverse=True)
    between = (candidates[rows] @ candidates.T)[index, second]
    between = torch.where(is_anchor, to_second, between)
    square = lam.square() + (1 - lam).square() + 2 * lam * (1 - lam) * between
    length = square.clamp(min=SHORTEST**2).sqrt()
    mixed = (lam * to_first + (1 - lam) * to_second) / length
    return Pairs(mixed, mixture.pos, mixture.neg)


@dataclass(frozen=True)
class MixInputs:
    """Inputs to mix, gathered over ranks, and the model that embeds a mix."""

    rows: Tensor  # [B, ...] images or feature maps
    stage: str
    blank: Tensor  # [1, 3, H, W], any image of the right size
    model: Embed

    def embed(self, first: Tensor, second: Tensor, lam: Tensor) -> Tensor:
        """Return vectors [M, D] of unit length of M mixes; each rank embeds its share of them."""
        # at least 2: one row has no batch statistics
        local_size = max(2, -(-len(first) // distributed.world()))
        start = local_size * distributed.rank()
        indices = torch.arange(start, start + local_size, device=first.device) % len(first)
        lam = lam[indices].reshape(-1, *[1] * (self.rows.ndim - 1))
        one, other = self.rows[first[indices]], self.rows[second[indices]]
        values = lam * one.to(lam.dtype) + (1 - lam) * other.to(lam.dtype)
        if self.rows.is_floating_point():
            values = values.to(self.rows.dtype)
        vectors = self.model(self.blank, tap=StageHook(self.stage, replacement=values))
        return functional.normalize(distributed.gather(vectors)[: len(first)])


def compare_inputs(mixture: Mixture, anchors: Tensor, inputs: MixInputs) -> Pairs:
    """Build the pairs of `anchors` [A, D], of unit length, and the model's vectors of mixed inputs.

    Where the mixture asks for the anchor itself, anchor a is row a of the inputs.
    """
    is_used = mixture.pos + mixture.neg > 0
    of, k = is_used.nonzero(as_tuple=True)
    sim = torch.zeros_like(mixture.pos)
    if len(of):
        first = mixture.first[of, k]
        first = torch.where(first == ITSELF, of, first)
        vectors = inputs.embed(first, mixture.second[of, k], mixture.lam[of, k])
        sim = sim.index_put((of, k), (anchors[of] * vectors).sum(dim=1))
    return Pairs(sim, mixture.pos, mixture.neg)


def build_mixed_pairs(mixture: Mixture, comparison: Comparison, inputs: MixInputs | None) -> Pairs:
    """Build the pairs of a mixture of candidates, or of inputs where there are some."""
    if inputs is not None:
        return compare_inputs(mixture, comparison.anchors.vectors, inputs)
    assert comparison.candidates is not None
    return compare_embeddings(mixture, comparison.pairs.sim, comparison.candidates.vectors)


def describe_cost(mixture: Mixture, inputs: MixInputs | None) -> str:
    """Describe what the mixed examples of a step cost."""
    count = int((mixture.pos + mixture.neg > 0).sum())
    if inputs is None:
        return f"mixup: {count} mixed embeddings in the first step, {4e-6 * count:.2f} MB"
    each = inputs.rows[0]
    size = count * each.numel() * max(4, each.element_size())
    shape = " x ".join(map(str, each.shape))
    return (
        f"mixup: {count} passes from stage {inputs.stage} on in the first step, "
        f"{size / 1e6:.1f} MB of {shape}"
    )


def has_gradient(term: PairTerm, mixup: Mixup, kind: str) -> bool:
    """Return whether a loss has a gradient for made-up similarities to mixed examples.

    Where a loss compares the positives of an anchor with its negatives, a mixed example stands on
    both sides: a single one, or several with one lambda, can cancel out whatever the similarity.
    """
    anchors, count = 8, min(mixup.per_anchor or 4, 4)
    spread = torch.logspace(-2, 0.2, anchors)[:, None]  # sharp losses see small differences only
    # near 1 too, where a loss with a large margin alone acts
    sim = (1 - spread * torch.linspace(0, 1, count + 1)[1:]).requires_grad_()
    lam = torch.linspace(0.1, 0.9, anchors * count).reshape(anchors, count)
    lam = lam if mixup.draw == "pair" else torch.full_like(lam, 0.4)
    lam = {"pos-pos": torch.ones_like(lam), "neg-neg": torch.zeros_like(lam)}.get(kind, lam)
    labels = torch.zeros(anchors, dtype=torch.int64)
    with torch.enable_grad():
        value = term.weigh(Pairs(sim, lam, 1 - lam), BatchSide(sim, labels)) / term.weight
        (gradient,) = torch.autograd.grad(value, sim)
    return bool(gradient.abs().max() > 1e-5)
