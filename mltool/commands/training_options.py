"""The options that `train` and `distill` share, as one value for the steps of both."""

from dataclasses import dataclass, field
from functools import cached_property

from mltool.components import Choice
from mltool.engine.mining import MiningSettings
from mltool.models import kept_run
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.parts import PartOptions
from mltool.options.run import RunOptions
from mltool.options.unlabeled import UnlabeledOptions
from mltool.options.validation import ValidationOptions

DEFAULT_ARCH, DEFAULT_DIM = "resnet50", 512  # as in the papers
# As measured: see "The defaults" in recipes/RESULTS.md.
PRETRAINED_LR, SCRATCH_LR = 1.5e-3, 3e-3
# Steps are a thousandth as long as layers are: BYOL's and SimCLR's rate for batches of 256.
LARS_LR = 0.3


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
    unlabeled: UnlabeledOptions = field(default_factory=UnlabeledOptions)
    parts: PartOptions = field(default_factory=PartOptions)

    @property
    def lr(self) -> float:
        """The rate of the new layers, of which the other rates are multiples."""
        if self.optimisation.lr is not None:
            return self.optimisation.lr
        if self.optimisation.optimizer == "lars":
            return LARS_LR
        return PRETRAINED_LR if self.is_pretrained else SCRATCH_LR

    @cached_property
    def is_pretrained(self) -> bool:
        """Whether the network had learned before the course began, of which this run is a part.

        Raises InputError where --keep-optimizer names a file that keeps no run.
        """
        if self.model.keep_optimizer and self.model.init is not None:
            return kept_run.read_facts(self.model.init).pretrained
        return self.model.is_pretrained

    @property
    def freeze_bn(self) -> bool:
        """Whether batch normalisation keeps its statistics, unless said: those it has learned.

        The statistics of small batches of a few classes make a pretrained network forget
        (`recipes/RESULTS.md`, "The defaults").
        """
        stated = self.optimisation.freeze_bn
        return self.is_pretrained if stated is None else stated

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
