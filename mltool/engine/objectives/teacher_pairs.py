"""Pair losses of a student's vectors with its teacher's: who is whose positive.

Budnik, Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.
"""

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from mltool.engine.objectives.pair_loss import Side, Term, pairs_of, weighted
from mltool.errors import UsageError
from mltool.losses import Pairs, pairs_from_labels
from mltool.options.choices import Positives, pairing_of, parse_loss


@dataclass(frozen=True)
class Candidates:
    """Candidates that each anchor has of its own: a positive, then negatives."""

    vectors: Tensor  # [A, 1 + n, D] of unit length
    exists: Tensor  # [A, 1 + n] bool


@dataclass(frozen=True)
class Seen:
    """A batch of all ranks, as the terms of a distillation see it."""

    raw: Tensor  # [B, D] the student's vectors, as long as they are
    student: Tensor  # [B, D] the same, as the model gives them
    teacher: Tensor | None  # [B, D_t], None where nothing asks for it
    rows: Tensor  # [B] into the image list
    labels: Tensor  # [B] class indices, -1 = unknown
    weights: Tensor | None  # [B] of the images
    tuples: Candidates | None  # of the mined batch's anchors
    anchors: Tensor | None  # [A] places in the batch where its anchors stand, None = everywhere


class TeacherPairLoss(nn.Module):
    """A pair loss with the student's vectors as anchors, and its teacher's as candidates.

    With `symmetric` the candidates are the student's own; with `mined` they come in tuples. Losses
    with proxies, and those that take vectors, see the student alone. `positives` is class,
    class+self or self, unless a preset has its own. Raises UsageError for what cannot be compared.
    """

    def __init__(
        self,
        text: str,
        *,
        positives: Positives,
        symmetric: bool,
        mined: bool,
        classes: int,
        dim: int,
    ) -> None:
        super().__init__()
        choice = parse_loss(text, with_teacher=True)
        preset = pairing_of(choice, positives)
        bare = replace(choice, alias="").text
        self.term = Term(bare, classes=classes, dim=dim)
        self.name = choice.alias or choice.name
        self.positives, self.has_negatives = preset.positives, preset.has_negatives
        self.asymmetric = self.term.minable and not symmetric
        if self.term.is_square and (mined or self.asymmetric):
            remedy = "leave out --mining" if mined else "say --symmetric"
            raise UsageError(f"{self.term.why_fixed()}; {remedy}")
        if symmetric and self.term.minable and preset.positives != "class":
            raise UsageError(
                f"--loss {text}: with --symmetric an image would be its own positive; use "
                "--positives class"
            )

    def forward(self, seen: Seen) -> Tensor:
        """The weighted loss."""
        batch = Side(seen.raw, seen.labels, seen.weights)
        if self.term.on_vectors:
            return self.term.of_vectors(batch)
        anchors, candidates = self.term.standing(batch)
        if self.term.proxies is not None:
            return self.term(pairs_of(anchors, candidates), anchors) + self.term.regularizer()
        if seen.anchors is not None:
            anchors = _taken(anchors, seen.anchors)
        if seen.tuples is not None:
            pairs = self._of_tuples(anchors, seen.tuples, seen.teacher)
        elif self.asymmetric:
            pairs = self._with_teacher(anchors, seen)
        else:
            return self.term(pairs_of(anchors, candidates), anchors)
        if anchors.weights is not None:
            pairs = weighted(pairs, anchors.weights[:, None])
        return self.term(pairs, anchors)

    def _with_teacher(self, anchors: Side, seen: Seen) -> Pairs:
        """The batch against the teacher's vectors of it, [B, B]."""
        assert seen.teacher is not None
        itself = seen.rows[:, None] == seen.rows
        sim = anchors.vectors @ seen.teacher.T
        pairs = pairs_from_labels(sim, seen.labels, seen.labels, exclude=itself)
        own = itself.to(sim.dtype)
        if self.positives == "class+self":
            pairs = pairs._replace(pos=pairs.pos + own)
        elif self.positives == "self":
            unknown = (seen.labels < 0)[:, None] | (seen.labels < 0)
            pairs = pairs._replace(pos=own, neg=pairs.neg + (unknown & ~itself))
        return pairs if self.has_negatives else pairs._replace(neg=torch.zeros_like(pairs.neg))

    def _of_tuples(self, anchors: Side, tuples: Candidates, teacher: Tensor | None) -> Pairs:
        """Every anchor against its own tuple [A, 1 + n], where it counts also against itself."""
        sim = torch.einsum("ad,akd->ak", anchors.vectors, tuples.vectors)
        exists = tuples.exists.to(sim.dtype)
        pos, neg = exists.clone(), exists.clone()
        pos[:, 1:], neg[:, 0] = 0, 0
        if self.positives == "self":
            pos[:, 0] = 0
        if not self.has_negatives:
            neg[:] = 0
        if self.positives == "class":
            return Pairs(sim, pos, neg)
        assert teacher is not None
        own = (anchors.vectors * teacher).sum(dim=1, keepdim=True)
        one = torch.ones_like(own)
        return Pairs(
            torch.cat([own, sim], 1), torch.cat([one, pos], 1), torch.cat([0 * one, neg], 1)
        )


def has_batch_pairs(text: str) -> bool:
    """Whether the candidates of a loss can be the teacher's vectors."""
    return parse_loss(text, with_teacher=True).declared.has_batch_pairs


def takes_vectors(text: str) -> bool:
    """Whether a loss takes the vectors of the batch, not pairs."""
    return parse_loss(text, with_teacher=True).declared.takes_vectors


def uses_tuples(text: str, *, symmetric: bool) -> bool:
    """Whether a loss compares anchors with mined negatives."""
    choice = parse_loss(text, with_teacher=True)
    has_negatives = pairing_of(choice, "class").has_negatives
    return choice.declared.has_batch_pairs and (symmetric or has_negatives)


def needs_labels(text: str, positives: Positives, *, symmetric: bool) -> bool:
    """Whether a loss is nothing without labels: all but a student's image with its teacher's."""
    choice = parse_loss(text, with_teacher=True)
    declared = choice.declared
    alone = pairing_of(choice, positives).positives == "self" and declared.has_batch_pairs
    return not (alone and not symmetric) or "labels" in declared.needs


def _taken(side: Side, places: Tensor) -> Side:
    weights = side.weights[places] if side.weights is not None else None
    return Side(side.vectors[places], side.labels[places], weights)
