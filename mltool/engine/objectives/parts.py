"""Divide and conquer: each learner has terms of its own, and its part of the vector.

Sanakoyeu et al., Divide and Conquer the Embedding Space for Metric Learning, CVPR 2019, and
Improving Deep Metric Learning by Divide and Conquer, TPAMI 2021.

The batch says whose turn it is (`Batch.learner`), and the model gives that learner's part of the
vector instead of the whole one. So a term sees vectors of its learner alone; here stands only which
terms take part. The whole vector has terms of its own, because its proxies are longer.
"""

from collections.abc import Mapping

from torch import Tensor

from mltool.engine.data import Batch
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.step_outputs import StepOutputs
from mltool.models.learners import Masks


class LearnerTerm(Term):
    """A term in the turns of one learner alone; of None in those of the whole vector.

    `hold_until` is the epoch from which the backbone learns with it.
    """

    def __init__(self, term: Term, learner: int | None, *, hold_until: int = 0) -> None:
        super().__init__(term.name, stream=term.stream)
        self.term, self.learner, self.hold_until = term, learner, hold_until
        self.reads_raw, self.passes, self.stage = term.reads_raw, term.passes, term.stage
        self.columns, self.warmup = term.columns, term.warmup

    def active(self, batch: Batch) -> bool:
        """Return whether it is the learner's turn."""
        return batch.learner == self.learner and self.term.active(batch)

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the scalars of the term."""
        return self.term(step)

    def figures(self) -> dict[str, float]:
        """Return what the term says of the latest step."""
        return self.term.figures()


class OrthogonalityTerm(Term):
    """The mean cosine of the masks in use, while parts learn."""

    def __init__(self, masks: Masks) -> None:
        super().__init__("orthogonality")
        self._masks = (masks,)  # a tuple, so that they are not saved here once more

    def active(self, batch: Batch) -> bool:
        """Return whether a part learns."""
        return batch.learner is not None

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted similarity."""
        (masks,) = self._masks
        return {self.name: masks.orthogonality * masks.similarity()}


def as_turns(
    terms: Mapping[str, Term], learner: int | None, *, hold_until: int = 0
) -> dict[str, LearnerTerm]:
    """Return the terms of one learner, by their keys."""
    return {key: LearnerTerm(term, learner, hold_until=hold_until) for key, term in terms.items()}
