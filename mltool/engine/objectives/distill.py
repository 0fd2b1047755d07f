"""Knowledge transfer: losses between a student's vectors of a batch and its teacher's."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mltool import distributed
from mltool.engine.data import Batch
from mltool.engine.loop import Embed
from mltool.engine.mining import Tuples
from mltool.engine.objectives.pair_loss import distinct
from mltool.engine.objectives.teacher_pairs import Candidates, Seen, TeacherPairLoss
from mltool.engine.objectives.transfer import TransferTerm
from mltool.engine.teachers import CachedTeacher, Teacher


class Distilled(nn.Module):
    """The sum of losses and transfers, each times its weight, over the rows of all ranks.

    `teacher` is asked for its vectors of each batch; it is None where no term wants them. With
    `mined` the batches are those tuples: of their anchors, whose positives and negatives are the
    teacher's vectors, or if `symmetric` of all their images. `normalize` tells whether the
    student's embeddings have unit length. What is random in a term uses `generator`, which is
    seeded by (seed, step), equal on all ranks.
    """

    steps: Tensor  # how many have been taken

    def __init__(
        self,
        terms: Sequence[TeacherPairLoss | TransferTerm],
        *,
        teacher: Teacher | None,
        mined: Tuples | None,
        symmetric: bool,
        normalize: bool,
        seed: int,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.names = distinct([term.name for term in terms])
        self.terms = nn.ModuleList(terms)
        self.teacher, self.mined, self.symmetric = teacher, mined, symmetric
        self.normalize, self.seed, self.generator = normalize, seed, generator
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def forward(self, streams: Mapping[str, Batch], model: Embed) -> dict[str, Tensor]:
        """The weighted terms by name."""
        self.generator.manual_seed(hash((self.seed, int(self.steps))))
        seen = self._seen(streams["main"], model)
        values = {name: term(seen) for name, term in zip(self.names, self.terms, strict=True)}
        self.steps += 1
        return values

    def _seen(self, batch: Batch, model: Embed) -> Seen:
        own = model(batch.images, raw=True)
        raw = distributed.gather(own)
        teacher = self.teacher.of_batch(batch) if self.teacher is not None else None
        weights = distributed.gather(batch.weights) if batch.weights is not None else None
        student = nn.functional.normalize(raw) if self.normalize else raw
        tuples, anchors = None, None
        if self.mined is not None and self.symmetric:
            tuples, anchors = self._whole(batch, student)
        elif self.mined is not None:
            tuples = self._cached(batch)
        return Seen(
            raw=raw,
            student=student,
            teacher=distributed.gather(teacher) if teacher is not None else None,
            rows=distributed.gather(batch.rows.to(raw.device)),
            labels=distributed.gather(batch.labels),
            weights=weights,
            tuples=tuples,
            anchors=anchors,
        )

    def _cached(self, batch: Batch) -> Candidates:
        """The teacher's vectors of the positives and negatives of a batch of anchors."""
        assert self.mined is not None
        assert isinstance(self.teacher, CachedTeacher)
        number = (batch.draws % len(self.mined)).to(self.mined.anchors.device)
        rows = torch.cat(
            [self.mined.positives[number, None], self.mined.negatives[number]], dim=1
        ).cpu()
        exists = rows >= 0
        draws = batch.draws[:, None].expand_as(rows)
        flat = rows.clamp(min=0).flatten().numpy()
        vectors = self.teacher.of_rows(flat, draws.flatten().numpy())
        device = batch.labels.device
        return Candidates(
            distributed.gather(vectors.reshape(*rows.shape, -1).to(device)),
            distributed.gather(exists.to(device)),
        )

    def _whole(self, batch: Batch, student: Tensor) -> tuple[Candidates, Tensor]:
        """The student's vectors of tuples that stand in the batch one after the other."""
        assert self.mined is not None
        length = 2 + self.mined.settings.negatives
        rows = distributed.gather(batch.rows.to(student.device)).reshape(-1, length)
        units = nn.functional.normalize(student).reshape(len(rows), length, -1)
        exists = rows[:, 1:] != rows[:, :1]  # the anchor once more stands for none
        places = torch.arange(len(rows), device=student.device) * length
        return Candidates(units[:, 1:], exists), places
