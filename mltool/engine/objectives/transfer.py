"""Transfers: losses between all that a student and its teacher make of a batch."""

from torch import Tensor, nn
from torch.nn import functional

from mltool import components, distributed
from mltool.engine.objectives.teacher_pairs import Seen
from mltool.models.features import FeatureHooks


class TransferTerm(nn.Module):
    """One transfer with its weight. `context` is what transfers may ask for by name.

    `student` and `teacher` listen to both networks, where the transfer wants more than vectors.
    """

    def __init__(
        self,
        text: str,
        *,
        student: FeatureHooks | None,
        teacher: FeatureHooks | None,
        context: dict[str, object],
    ) -> None:
        super().__init__()
        choice = components.parse("transfers", text)
        self.name, self.weight = choice.name, choice.weight
        self.needs, self.takes_raw = choice.declared.needs, choice.declared.takes_raw
        self.listeners = (student, teacher)
        if student is not None and teacher is not None:
            context = context | {
                "student_channels": student.channels,
                "teacher_channels": teacher.channels,
            }
            if "penultimate" in self.needs:
                context |= {"student_dim": student.pooled_dim, "teacher_dim": teacher.pooled_dim}
        self.transfer = components.load("transfers", choice, **context)

    def forward(self, seen: Seen) -> Tensor:
        """The weighted value."""
        assert seen.teacher is not None
        student, teacher = seen.student, seen.teacher
        if not self.takes_raw:
            student = functional.normalize(seen.raw)
        further: dict[str, object] = {}
        if "index" in self.needs:
            further["index"] = seen.rows
        if "labels" in self.needs:
            further["labels"] = seen.labels
        one, other = self.listeners
        if "penultimate" in self.needs and one is not None and other is not None:
            student, teacher = distributed.gather(one.pooled), distributed.gather(other.pooled)
        if "maps" in self.needs and one is not None and other is not None:
            further["student_maps"] = [distributed.gather(maps) for maps in one.maps]
            further["teacher_maps"] = [distributed.gather(maps) for maps in other.maps]
        return self.weight * self.transfer(student, teacher, **further)


def needs(text: str) -> frozenset[str]:
    """What a transfer wants besides the vectors."""
    return components.parse("transfers", text).declared.needs


def takes_raw(text: str) -> bool:
    """Whether a transfer is published for vectors as long as they are."""
    return components.parse("transfers", text).declared.takes_raw


def is_transfer(text: str) -> bool:
    """Whether a text names a transfer, going by the name alone."""
    name = text.partition(":")[0].replace("_", "-")
    return name in components.names("transfers")
