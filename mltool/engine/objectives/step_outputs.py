"""What a step has computed of one stream: the model's vectors, the teacher's, and pairs so far."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mltool import distributed
from mltool.engine.data import Batch
from mltool.engine.loop import Embed
from mltool.engine.teachers import CachedTeacher, Teacher
from mltool.files.manifest import WEIGHTS
from mltool.losses import Pairs
from mltool.models.features import FeatureHooks
from mltool.moment import Moment


class BatchSide(NamedTuple):
    """The anchors, or the candidates, of the pairs of a step."""

    vectors: Tensor  # [N, D] float32
    labels: Tensor  # [N] class indices, -1 = unknown
    weights: Tensor | None = None  # [N] of the images, None = all alike
    rows: Tensor | None = None  # [N] into the image list, -1 = none; None for proxies


class Comparison(NamedTuple):
    """The pairs that a loss sees, and who stands on their two sides."""

    anchors: BatchSide
    candidates: BatchSide | None  # None where each anchor has candidates for itself alone
    pairs: Pairs
    self_columns: Tensor | None = None  # [A] the candidate that shows the anchor's own image


@dataclass(frozen=True)
class TupleCandidates:
    """The candidates of each anchor alone: a positive, then negatives."""

    vectors: Tensor  # [A, 1 + n, D] of unit length
    exists: Tensor  # [A, 1 + n] bool


@dataclass(frozen=True)
class Features:
    """What lies below the vectors of this rank's share of a batch."""

    maps: list[Tensor]  # [B, C, H, W] of the last stages
    pooled: Tensor  # [B, C]

    @classmethod
    def from_hooks(cls, hooks: FeatureHooks, span: slice | None = None) -> "Features":
        """Take from the latest forward pass all rows, or those of a span."""
        maps, pooled = list(hooks.maps), hooks.pooled
        if span is None:
            return cls(maps, pooled)
        return cls([each[span] for each in maps], pooled[span])


@dataclass(frozen=True)
class StepOutputs:
    """The outputs of one stream in one step, as the terms read them.

    Tensors [B, ...] hold the rows of all ranks, in rank order, unless they say otherwise. What
    few terms read is gathered, or asked of the teacher, when the first one does.
    """

    batch: Batch  # this rank's share
    vectors: Tensor  # [B, D] as the model gave them, before normalisation if `is_raw`
    is_raw: bool
    normalizes: bool  # whether embeddings have unit length
    moment: Moment
    model: Embed
    generator: Generator
    teacher: Teacher | None = None
    features: Features | None = None  # the student's, of this rank
    views: Tensor | None = None  # [V, B, D] of all views, where a term takes them; `vectors` first
    stage_outputs: Tensor | None = None  # [b, ...] of this rank, of the stage where it is mixed
    comparisons: dict[str, Comparison] = field(default_factory=dict)  # by term, as they are made

    @cached_property
    def labels(self) -> Tensor:
        """Class indices [B], -1 = unknown."""
        return distributed.gather(self.batch.labels)

    @cached_property
    def weights(self) -> Tensor | None:
        """Weights of the images [B], None where all count alike."""
        weights = [self.batch.columns[name] for name in WEIGHTS if name in self.batch.columns]
        if not weights:
            return None
        return distributed.gather(torch.stack(weights).prod(dim=0).to(self.vectors.device))

    @cached_property
    def rows(self) -> Tensor:
        """Rows of the image list [B], on the device."""
        return distributed.gather(self.batch.rows.to(self.vectors.device))

    @cached_property
    def embeddings(self) -> Tensor:
        """Embeddings [B, D] as the trained model gives them, of unit length where it does so."""
        if self.is_raw and self.normalizes:
            return functional.normalize(self.vectors)
        return self.vectors

    @cached_property
    def unit_embeddings(self) -> Tensor:
        """The embeddings [B, D] at unit length."""
        return functional.normalize(self.embeddings)

    @property
    def side(self) -> BatchSide:
        """The student's vectors as one side of pairs, as long as they are."""
        return BatchSide(self.vectors, self.labels, self.weights)

    @property
    def teacher_side(self) -> BatchSide:
        """The teacher's vectors of the same images, as candidates."""
        return BatchSide(self.teacher_vectors, self.labels, rows=self.rows)

    @cached_property
    def stage_inputs(self) -> Tensor:
        """Images or feature maps [B, ...] of the stage at which examples are mixed."""
        assert self.stage_outputs is not None
        return distributed.gather(self.stage_outputs)

    @cached_property
    def teacher_vectors(self) -> Tensor:
        """The teacher's vectors [B, D_t]; they carry no gradient."""
        return distributed.gather(self._teacher_outputs[0]).to(self.vectors.dtype)

    @property
    def teacher_features(self) -> Features | None:
        """What lies below the teacher's vectors, of this rank; None for a cached teacher."""
        return self._teacher_outputs[1]

    @cached_property
    def _teacher_outputs(self) -> tuple[Tensor, Features | None]:
        assert self.teacher is not None
        vectors = self.teacher.embed_batch(self.batch)
        hooks = self.teacher.hooks
        return vectors, Features.from_hooks(hooks) if hooks is not None else None

    @cached_property
    def teacher_tuples(self) -> TupleCandidates:
        """The teacher's vectors of each anchor's positive and negatives, which the batch names."""
        assert isinstance(self.teacher, CachedTeacher)
        rows, draws = self.batch.columns["tuple"], self.batch.draws[:, None]
        flat = rows.clamp(min=0).flatten().numpy()
        vectors = self.teacher.read_rows(flat, draws.expand_as(rows).flatten().numpy())
        device = self.batch.labels.device
        return TupleCandidates(
            distributed.gather(vectors.reshape(*rows.shape, -1).to(device)).to(self.vectors.dtype),
            distributed.gather((rows >= 0).to(device)),
        )


def embed_views(groups: Sequence[Tensor], embed: Callable[[Tensor], Tensor]) -> Tensor:
    """Return vectors [V, B, D] of views of one or several sizes, one pass for each size.

    `groups` hold the views [V_g, b, 3, S_g, S_g] of this rank; `embed` maps images to vectors.
    """
    by_size = [embed(views.flatten(0, 1)).unflatten(0, views.shape[:2]) for views in groups]
    return distributed.gather(torch.cat(by_size).transpose(0, 1)).transpose(0, 1)
