"""Terms of an objective: a loss, who stands on its two sides, and its weight in the sum."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool import components
from mltool.losses import Pairs, pairs_from_labels
from mltool.models.proxies import Proxies

Miner = Callable[[Pairs], Pairs]


class Side(NamedTuple):
    """Who stands on one side of the pairs."""

    vectors: Tensor  # [N, D] float32
    labels: Tensor  # [N] class indices, -1 = unknown
    weights: Tensor | None = None  # [N] of the images, None = all alike


class Term(nn.Module):
    """One loss with its proxies, if it has some.

    `text` is a component text that may carry `weight=`. `sides` tells what stands as anchors and
    as candidates: `batch` or `proxies`.
    """

    def __init__(self, text: str, *, classes: int, dim: int) -> None:
        super().__init__()
        choice = components.parse("losses", text)
        declared = choice.declared
        self.name, self.weight = choice.name, choice.weight
        self.loss = components.load("losses", choice, classes=classes, dim=dim)
        self.on_vectors, self.is_square = declared.takes_vectors, declared.square
        self.needs_labels = "labels" in declared.needs
        self.sides = (declared.anchors, declared.candidates)
        self.minable = declared.has_batch_pairs
        self.proxies: Proxies | None = None
        self.has_groups = bool(declared.proxies_per_class)
        if declared.has_proxies:
            per_class = choice[declared.proxies_per_class] if self.has_groups else 1
            assert isinstance(per_class, int)
            self.proxies = Proxies(classes, dim, per_class=per_class)

    def standing(self, batch: Side) -> tuple[Side, Side]:
        """(anchors, candidates), of unit length, for a batch of vectors of any length."""
        units = batch._replace(vectors=functional.normalize(batch.vectors))
        if self.proxies is None:
            return units, units
        both = {"batch": units, "proxies": Side(self.proxies(), self.proxies.labels)}
        return both[self.sides[0]], both[self.sides[1]]

    def forward(self, pairs: Pairs, anchors: Side) -> Tensor:
        """The weighted loss of pairs [A, B]."""
        value = self.loss(pairs, anchors.labels) if self.needs_labels else self.loss(pairs)
        return self.weight * value

    def of_vectors(self, batch: Side) -> Tensor:
        """The weighted loss of a batch, for a loss that wants vectors and not pairs."""
        return self.weight * self.loss(batch.vectors, batch.labels)

    def regularizer(self) -> Tensor | float:
        """The weighted cost of the proxies themselves, where the loss has one."""
        if self.proxies is None or not hasattr(self.loss, "regularizer"):
            return 0.0
        return self.weight * self.loss.regularizer(self.proxies())

    def why_fixed(self) -> str:
        """Why nothing else may stand among this loss's candidates, or an empty string."""
        if self.on_vectors:
            return f"{self.name} takes the vectors of the batch, not pairs"
        if self.is_square:
            return f"{self.name} compares every image of the batch with every other one"
        return ""


def pairs_of(anchors: Side, candidates: Side) -> Pairs:
    """Pairs of two sides by their labels; a side against itself leaves out the diagonal.

    The weight of an image multiplies its pairs as an anchor, or, where the anchors are proxies,
    as a candidate.
    """
    itself = None
    if anchors is candidates:
        itself = torch.eye(len(anchors.labels), dtype=torch.bool, device=anchors.labels.device)
    sim = anchors.vectors @ candidates.vectors.T
    pairs = pairs_from_labels(sim, anchors.labels, candidates.labels, exclude=itself)
    if anchors.weights is not None:
        return weighted(pairs, anchors.weights[:, None])
    if candidates.weights is not None:
        return weighted(pairs, candidates.weights)
    return pairs


def weighted(pairs: Pairs, weights: Tensor) -> Pairs:
    """Pairs whose pull and push are multiplied by weights that broadcast to [A, B]."""
    return pairs._replace(pos=pairs.pos * weights, neg=pairs.neg * weights)


def miner(text: str | None, *, dim: int, generator: torch.Generator) -> Miner | None:
    """The miner of a component text; one that draws at random uses `generator`."""
    if text is None:
        return None
    return components.load("miners", text, dim=dim, generator=generator)


def distinct(names: list[str]) -> list[str]:
    """The names, a repeated one numbered."""
    return [f"{n}-{i + 1}" if n in names[:i] else n for i, n in enumerate(names)]
