"""Cross-batch memory: the embeddings of earlier batches as further candidates.

Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.pair_loss import PairTerm
from mltool.engine.objectives.step_outputs import BatchSide, StepOutputs
from mltool.engine.streams import MAIN
from mltool.losses import Pairs


@dataclass(frozen=True)
class MemorySettings:
    """How many embeddings are kept, what their term counts, and from which step on."""

    size: int
    weight: float = 1.0
    start: int = 0


class Memory(Term):
    """The latest `size` candidates, detached; the oldest make room for new ones.

    It is a term without a value, listed last: filled after the losses were taken, it never holds
    the batch at hand. It is filled from step `start` on, because embeddings of a network that
    still moves fast are soon out of date. `of_teacher` tells whose vectors it remembers. Saved
    with the run.
    """

    vectors: Tensor  # [size, dim] of unit length
    labels: Tensor  # [size], -1 = unknown, or still empty
    rows: Tensor  # [size] of the image list, -1 = still empty
    offset: Tensor  # scalar, the slot of the next embedding

    def __init__(
        self,
        settings: MemorySettings,
        *,
        dim: int,
        of_teacher: bool = False,
        stream: str = MAIN,
    ) -> None:
        super().__init__("memory", stream=stream)
        self.settings, self.of_teacher = settings, of_teacher
        self.register_buffer("vectors", torch.zeros(settings.size, dim))
        self.register_buffer("labels", torch.full((settings.size,), -1))
        self.register_buffer("rows", torch.full((settings.size,), -1))
        self.register_buffer("offset", torch.zeros((), dtype=torch.int64))

    def side(self) -> BatchSide:
        """Return all slots as candidates; an empty one has no label and no row, hence no pairs."""
        return BatchSide(self.vectors, self.labels, rows=self.rows)

    def is_filled(self, step: int) -> bool:
        """Return whether an earlier step was remembered."""
        return step > self.settings.start

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Remember the candidates of this step, from the start on."""
        if step.moment.step >= self.settings.start:
            of_student = step.side._replace(rows=step.rows)
            self.put(step.teacher_side if self.of_teacher else of_student)
        return {}

    @torch.no_grad()
    def put(self, batch: BatchSide) -> None:
        """Remember a batch, in its order; of one larger than the memory the last rows."""
        assert batch.rows is not None
        size = self.settings.size
        vectors, labels, rows = (each[-size:] for each in (batch.vectors, batch.labels, batch.rows))
        slots = (self.offset + torch.arange(len(labels), device=self.offset.device)) % size
        # losses of this step may still need the old values for their backward
        units = functional.normalize(vectors).to(self.vectors.dtype)
        self.vectors = self.vectors.index_copy(0, slots, units)
        self.labels = self.labels.index_copy(0, slots, labels)
        self.rows = self.rows.index_copy(0, slots, rows)
        self.offset = (self.offset + len(labels)) % size


class MemoryTerm(Term):
    """The loss of a pair term against remembered candidates, chosen by the same selector.

    `relate` builds the pairs of anchors with remembered candidates as the pair term's source does
    with those of the batch.
    """

    def __init__(
        self,
        of: PairTerm,
        memory: Memory,
        relate: Callable[[BatchSide, BatchSide], Pairs],
    ) -> None:
        super().__init__(f"{of.name}/memory", stream=of.stream)
        self.relate = relate
        self._unsaved = of, memory  # a tuple, so that neither is saved here once more

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted loss; nothing as long as nothing is remembered."""
        of, memory = self._unsaved
        if not memory.is_filled(step.moment.step):
            return {}
        anchors = step.comparisons[of.name].anchors
        pairs = of.select(self.relate(anchors, memory.side()), anchors)
        return {self.name: memory.settings.weight * of.weigh(pairs, anchors)}
