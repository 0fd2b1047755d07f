"""The teacher's vectors, and tuples, as candidates of the student's: who is whose positive.

Budnik, Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.

With the labels of a batch of three images, 0 0 1, and the rule `class+self`, anchor 0 is pulled
to the teacher's vectors 0 (of its own image) and 1 (of its class), and pushed from 2:

    class        pos = 0 1 0    neg = 0 0 1
    class+self   pos = 1 1 0    neg = 0 0 1
    self         pos = 1 0 0    neg = 0 0 1

By `self` an image of unknown class is pushed from all others, since nothing else tells them apart.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from mltool.engine.objectives.pair_loss import PairTerm, scale_pairs
from mltool.engine.objectives.step_outputs import (
    BatchSide,
    Comparison,
    StepOutputs,
    TupleCandidates,
)
from mltool.losses import Pairs, pairs_from_labels
from mltool.options.choices import Positives


@dataclass(frozen=True)
class TeacherVectors:
    """The teacher's vectors of the whole batch as candidates."""

    positives: Positives
    has_negatives: bool = True

    def compare(self, term: PairTerm, step: StepOutputs) -> Comparison:
        """Return the pairs [B, B] of the student's vectors with the teacher's."""
        anchors, _ = term.sides(step.side._replace(rows=step.rows))
        candidates = step.teacher_side
        columns = torch.arange(len(candidates.labels), device=candidates.labels.device)
        return Comparison(anchors, candidates, self.relate(anchors, candidates), columns)

    def relate(self, anchors: BatchSide, candidates: BatchSide) -> Pairs:
        """Return pairs by labels and by the images themselves; rows of -1 pair with nothing."""
        assert anchors.rows is not None
        assert candidates.rows is not None
        is_self = anchors.rows[:, None] == candidates.rows
        sim = anchors.vectors @ candidates.vectors.T
        pairs = pairs_from_labels(sim, anchors.labels, candidates.labels, exclude=is_self)
        to_self = is_self.to(sim.dtype)
        if self.positives == "class+self":
            pairs = pairs._replace(pos=pairs.pos + to_self)
        elif self.positives == "self":
            is_unknown = (anchors.labels < 0)[:, None] | (candidates.labels < 0)
            is_other = is_unknown & ~is_self & (candidates.rows >= 0)
            pairs = pairs._replace(pos=to_self, neg=pairs.neg + is_other)
        if not self.has_negatives:
            pairs = pairs._replace(neg=torch.zeros_like(pairs.neg))
        return _apply_weights(pairs, anchors)


@dataclass(frozen=True)
class TeacherTuples:
    """The teacher's vectors of each anchor's own tuple as candidates [A, 1 + n].

    By `class+self` and `self` the teacher's vector of the anchor comes before them.
    """

    positives: Positives
    has_negatives: bool = True

    def compare(self, term: PairTerm, step: StepOutputs) -> Comparison:
        """Return the pairs of the batch's anchors, each with its tuple."""
        anchors, _ = term.sides(step.side)
        pairs = _pair_with_tuples(anchors.vectors, step.teacher_tuples)
        pos, neg = pairs.pos, pairs.neg if self.has_negatives else torch.zeros_like(pairs.neg)
        pos = torch.zeros_like(pos) if self.positives == "self" else pos
        pairs = Pairs(pairs.sim, pos, neg)
        if self.positives != "class":
            to_self = (anchors.vectors * step.teacher_vectors).sum(dim=1, keepdim=True)
            one = torch.ones_like(to_self)
            columns = zip((to_self, one, torch.zeros_like(one)), pairs, strict=True)
            pairs = Pairs(*(torch.cat([first, others], dim=1) for first, others in columns))
        return Comparison(anchors, None, _apply_weights(pairs, anchors))


@dataclass(frozen=True)
class BatchTuples:
    """The student's own vectors of a batch of whole tuples, `size` images one after the other.

    A negative that is missing is the anchor once more.
    """

    size: int

    def compare(self, term: PairTerm, step: StepOutputs) -> Comparison:
        """Return the pairs of each tuple's anchor with the rest of the tuple [A, size - 1]."""
        side, _ = term.sides(step.side)
        rows = step.rows.reshape(-1, self.size)
        first = torch.arange(len(rows), device=step.vectors.device) * self.size
        weights = side.weights[first] if side.weights is not None else None
        anchors = BatchSide(side.vectors[first], side.labels[first], weights)
        units = step.unit_embeddings.reshape(len(rows), self.size, -1)
        tuples = TupleCandidates(units[:, 1:], exists=rows[:, 1:] != rows[:, :1])
        pairs = _pair_with_tuples(anchors.vectors, tuples)
        return Comparison(anchors, None, _apply_weights(pairs, anchors))


def _pair_with_tuples(anchors: Tensor, tuples: TupleCandidates) -> Pairs:
    """Build the pairs [A, 1 + n] of anchors [A, D]: a positive first, then negatives."""
    sim = torch.einsum("ad,akd->ak", anchors, tuples.vectors)
    exists = tuples.exists.to(sim.dtype)
    pos, neg = exists.clone(), exists.clone()
    pos[:, 1:], neg[:, 0] = 0, 0
    return Pairs(sim, pos, neg)


def _apply_weights(pairs: Pairs, anchors: BatchSide) -> Pairs:
    return pairs if anchors.weights is None else scale_pairs(pairs, anchors.weights[:, None])
