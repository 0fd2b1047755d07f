"""Transfers: losses between all that a student and its teacher make of a batch."""

from torch import Tensor
from torch.nn import functional

from mltool import components, distributed
from mltool.components import Choice
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.step_outputs import StepOutputs
from mltool.models.features import FeatureHooks


class TransferTerm(Term):
    """One transfer with its weight.

    `context` is what transfers may ask for by name. `student` and `teacher` are hooks at both
    networks, where the transfer wants more than vectors.
    """

    group = "transfer"
    reads_raw = True

    def __init__(
        self,
        choice: Choice,
        *,
        student: FeatureHooks | None,
        teacher: FeatureHooks | None,
        context: dict[str, object],
        name: str | None = None,
    ) -> None:
        super().__init__(name or choice.name)
        self.weight = choice.weight
        self.needs, self.takes_raw = choice.declared.needs, choice.declared.takes_raw
        if student is not None and teacher is not None:
            context = context | {
                "student_channels": student.channels,
                "teacher_channels": teacher.channels,
            }
            if "penultimate" in self.needs:
                context |= {"student_dim": student.pooled_dim, "teacher_dim": teacher.pooled_dim}
        self.transfer = components.load("transfers", choice, **context)

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted value of the transfer."""
        teacher = step.teacher_vectors
        student = step.embeddings if self.takes_raw else functional.normalize(step.vectors)
        further: dict[str, object] = {}
        if "index" in self.needs:
            further["index"] = step.rows
        if "labels" in self.needs:
            further["labels"] = step.labels
        of_student, of_teacher = step.features, step.teacher_features
        if of_student is not None and of_teacher is not None:
            if "penultimate" in self.needs:
                student = distributed.gather(of_student.pooled)
                teacher = distributed.gather(of_teacher.pooled)
            if "maps" in self.needs:
                further["student_maps"] = [distributed.gather(maps) for maps in of_student.maps]
                further["teacher_maps"] = [distributed.gather(maps) for maps in of_teacher.maps]
        return {self.name: self.weight * self.transfer(student, teacher, **further)}
