"""The options that `train` and `distill` share, as one value for the steps of both."""

from dataclasses import dataclass

from mltool.components import Choice
from mltool.engine.mining import MiningSettings
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.run import RunOptions
from mltool.options.validation import ValidationOptions

DEFAULT_ARCH, DEFAULT_DIM = "resnet50", 512  # as in the papers


@dataclass(frozen=True, kw_only=True)
class TrainingOptions:
    """What a command that learns was called with; `losses` are those of `objective`, parsed.

    It stays in this folder: what lies below takes the values that it uses.
    """

    data: list[str]
    output: str
    losses: list[Choice]
    model: ModelOptions
    objective: ObjectiveOptions
    images: ImageOptions
    lists: ListOptions
    batches: BatchOptions
    tuples: TupleOptions
    optimisation: OptimisationOptions
    validation: ValidationOptions
    execution: RunOptions

    @property
    def mining(self) -> MiningSettings | None:
        """How tuples are mined, None = not at all."""
        if self.tuples.mining == "none":
            return None
        counts = {
            "pool": self.tuples.pool,
            "queries": self.tuples.queries,
            "negatives": self.tuples.negatives,
        }
        return MiningSettings(
            self.tuples.mining, **{key: n for key, n in counts.items() if n is not None}
        )
