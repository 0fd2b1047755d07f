"""Terms of a basis, a module that learns labelled classes and judges pairs of other images.

Its loss has two summands, and each reads one stream: `BasisTerm` the labelled images, and
`SeparationTerm` those with pseudo-labels. The first one holds the basis, and the second renews
its statistics; a pair term listed behind both takes `basis.select` as its selector.
"""

import logging
from typing import Protocol, cast

from torch import Tensor, nn

from mltool import components
from mltool.components import Choice
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.step_outputs import StepOutputs
from mltool.engine.streams import MAIN
from mltool.files.manifest import WEIGHTS
from mltool.losses import Pairs

logger = logging.getLogger(__name__)


class Basis(Protocol):
    """What every component of `bases` has; `mltool.bases` says it in words."""

    weight: float
    warmup: int

    def classify(self, vectors: Tensor, labels: Tensor) -> Tensor:
        """Return a loss of each labelled image."""
        ...

    def separate(self, vectors: Tensor, labels: Tensor, rows: Tensor) -> Tensor:
        """Return a loss of images with pseudo-labels, and renew the statistics."""
        ...

    def select(self, pairs: Pairs, vectors: Tensor) -> Pairs:
        """Return the pairs of images with pseudo-labels that count."""
        ...

    def summary(self) -> str:
        """Describe the statistics."""
        ...


def load_basis(choice: Choice, *, classes: int, dim: int, steps: int) -> Basis:
    """Load a basis of labelled classes, for embeddings of length `dim` and a run of `steps`."""
    return cast(Basis, components.load("bases", choice, classes=classes, dim=dim, steps=steps))


class BasisTerm(Term):
    """The basis on labelled images; the model stands still while it warms up.

    The weight of an image multiplies its loss.
    """

    group = "basis"
    columns = frozenset(WEIGHTS)

    def __init__(self, basis: Basis, *, name: str, stream: str = MAIN) -> None:
        super().__init__(f"{name}/classes", stream=stream)
        assert isinstance(basis, nn.Module)
        self.basis = basis
        self.warmup = basis.warmup

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted mean of the images' losses."""
        losses = self.basis.classify(step.embeddings, step.labels)
        if step.weights is not None:
            losses = losses * step.weights
        return {self.name: self.basis.weight * losses.mean()}


class SeparationTerm(Term):
    """The basis on images with pseudo-labels; every epoch ends with a line about its statistics."""

    def __init__(self, basis: Basis, *, name: str, stream: str) -> None:
        super().__init__(f"{name}/pairs", stream=stream)
        self.label = name
        self._basis = (basis,)  # a tuple, so that it is not saved here once more

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted loss."""
        (basis,) = self._basis
        value = basis.weight * basis.separate(step.embeddings, step.labels, step.rows)
        if (step.moment.step + 1) % step.moment.steps == 0:
            logger.info("%s: %s", self.label, basis.summary())
        return {self.name: value}
