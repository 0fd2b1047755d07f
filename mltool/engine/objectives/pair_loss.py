"""Terms of pairs: a loss, its two sides, who chooses among their pairs, and a weight."""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mltool import components
from mltool.components import Choice
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.step_outputs import BatchSide, Comparison, StepOutputs
from mltool.engine.streams import MAIN
from mltool.errors import UsageError
from mltool.files.manifest import WEIGHTS
from mltool.losses import Pairs, pairs_from_labels
from mltool.models.proxies import Proxies

# (pairs [A, B], the anchors' vectors [A, D]) -> the pairs that count; an `nn.Module` where it has
# a state, which it may share with a term of its own
Selector = Callable[[Pairs, Tensor], Pairs]


class CandidateSource(Protocol):
    """Where the candidates of a pair term come from."""

    def compare(self, term: "PairTerm", step: StepOutputs) -> Comparison:
        """Return the pairs of a step."""
        ...


class DeclaredSides:
    """The sides that the loss file declares: batch and batch, or proxies on one of them."""

    def compare(self, term: "PairTerm", step: StepOutputs) -> Comparison:
        """Return the pairs of the student's vectors among each other, or with proxies."""
        anchors, candidates = term.sides(step.side)
        return Comparison(anchors, candidates, build_pairs(anchors, candidates))


class DistinctImages:
    """The batch against itself, without pairs of one image, which a small class repeats."""

    def compare(self, term: "PairTerm", step: StepOutputs) -> Comparison:
        """Return the pairs of different images among the student's vectors."""
        comparison = DeclaredSides().compare(term, step)
        differs = step.rows[:, None] != step.rows
        return comparison._replace(pairs=scale_pairs(comparison.pairs, differs))


class PairTerm(Term):
    """One loss with its proxies, if it has some, on pairs of anchors and candidates.

    Anchors are the student's vectors or proxies, as the loss declares. The candidates come from
    `source`; `selector` chooses among the pairs. Its proxies, and what else the loss learns, are
    `proxies` to the optimiser.
    """

    columns = frozenset(WEIGHTS)

    def __init__(
        self,
        choice: Choice,
        *,
        classes: int,
        dim: int,
        source: CandidateSource | None = None,
        selector: Selector | None = None,
        name: str | None = None,
        stream: str = MAIN,
    ) -> None:
        super().__init__(name or choice.alias or choice.name, stream=stream)
        self.choice, self.weight = choice, choice.weight
        self.declared = choice.declared
        self.loss = components.load("losses", choice, classes=classes, dim=dim)
        self.source = source or DeclaredSides()
        self.selector = selector
        self.proxies: Proxies | None = None
        if self.declared.has_proxies:
            setting = self.declared.proxies_per_class
            per_class = choice[setting] if setting else 1
            assert isinstance(per_class, int)
            self.proxies = Proxies(classes, dim, per_class=per_class)

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted loss, and keep what it compared for the terms that depend on it."""
        comparison = self.source.compare(self, step)
        pairs = self.select(comparison.pairs, comparison.anchors)
        step.comparisons[self.name] = comparison._replace(pairs=pairs)
        return {self.name: self.weigh(pairs, comparison.anchors) + self.regularizer()}

    def sides(self, batch: BatchSide) -> tuple[BatchSide, BatchSide]:
        """Return (anchors, candidates), of unit length, for a batch of vectors of any length."""
        units = batch._replace(vectors=functional.normalize(batch.vectors))
        if self.proxies is None:
            return units, units
        both = {"batch": units, "proxies": BatchSide(self.proxies(), self.proxies.labels)}
        return both[self.declared.anchors], both[self.declared.candidates]

    def select(self, pairs: Pairs, anchors: BatchSide) -> Pairs:
        """Return the pairs that the selector keeps, all where there is none."""
        return self.selector(pairs, anchors.vectors) if self.selector is not None else pairs

    def weigh(self, pairs: Pairs, anchors: BatchSide) -> Tensor:
        """Return the weighted loss of pairs [A, B]."""
        if "labels" in self.declared.needs:
            return self.weight * self.loss(pairs, anchors.labels)
        return self.weight * self.loss(pairs)

    def regularizer(self) -> Tensor | float:
        """Return the weighted cost of the proxies themselves, 0 where the loss has none."""
        if self.proxies is None or not hasattr(self.loss, "regularizer"):
            return 0.0
        return self.weight * self.loss.regularizer(self.proxies())


class VectorTerm(Term):
    """One loss that takes the vectors of the batch, before normalisation, instead of pairs."""

    reads_raw = True
    columns = frozenset(WEIGHTS)  # to refuse it

    def __init__(
        self,
        choice: Choice,
        *,
        classes: int,
        dim: int,
        name: str | None = None,
        stream: str = MAIN,
    ) -> None:
        super().__init__(name or choice.name, stream=stream)
        self.choice, self.weight = choice, choice.weight
        self.loss = components.load("losses", choice, classes=classes, dim=dim)

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted loss. Raises UsageError where images have weights."""
        if step.weights is not None:
            raise UsageError(
                f"{self.name} takes vectors, not pairs, and cannot weight images; leave out the "
                f"column {' or '.join(f'`{name}`' for name in WEIGHTS)}, or use another --loss"
            )
        return {self.name: self.weight * self.loss(step.vectors, step.labels)}


def build_pairs(anchors: BatchSide, candidates: BatchSide) -> Pairs:
    """Build the pairs of two sides from labels; a side against itself leaves out the diagonal.

    The weight of an image multiplies its pairs as an anchor, or, where the anchors are proxies,
    as a candidate.
    """
    diagonal = None
    if anchors is candidates:
        diagonal = torch.eye(len(anchors.labels), dtype=torch.bool, device=anchors.labels.device)
    sim = anchors.vectors @ candidates.vectors.T
    pairs = pairs_from_labels(sim, anchors.labels, candidates.labels, exclude=diagonal)
    if anchors.weights is not None:
        return scale_pairs(pairs, anchors.weights[:, None])
    if candidates.weights is not None:
        return scale_pairs(pairs, candidates.weights)
    return pairs


def scale_pairs(pairs: Pairs, weights: Tensor) -> Pairs:
    """Multiply pull and push of pairs by weights that broadcast to [A, B]."""
    return pairs._replace(pos=pairs.pos * weights, neg=pairs.neg * weights)


def load_miner(choice: Choice, *, dim: int, generator: Generator) -> Selector:
    """Load a miner as a selector; one that draws at random uses `generator`."""
    mine = components.load("miners", choice, dim=dim, generator=generator)
    return lambda pairs, vectors: mine(pairs)
