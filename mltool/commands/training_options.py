"""The options that `train` and `distill` share, as one value for the steps of both."""

from dataclasses import dataclass, field
from functools import cached_property

from mltool.components import Choice
from mltool.engine.mining import MiningSettings
from mltool.models import kept_run
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import VECTORS, ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.parts import PartOptions
from mltool.options.run import RunOptions
from mltool.options.unlabeled import UnlabeledOptions
from mltool.options.validation import ValidationOptions

DEFAULT_ARCH, DEFAULT_DIM = "resnet50", 512  # as in the papers
# As measured: see "The defaults" in recipes/RESULTS.md.
PRETRAINED_LR, SCRATCH_LR, HEAD_LR = 1.5e-3, 1e-2, 3e-4
# At SCRATCH_LR random weights of photographs learned less than at a third of it, but for this.
SCRATCH_WARMUP = 25  # steps
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
        if self.is_pretrained:
            return PRETRAINED_LR
        return HEAD_LR if self.model.arch == VECTORS else SCRATCH_LR

    def choose_warmup(self, *, steps: int) -> float:
        """Return the epochs, of `steps` steps each, of rising rates.

        Unless said they are 25 steps from scratch, a third of the run at most, and else none.
        """
        settings = self.optimisation
        if settings.warmup is not None:
            return settings.warmup
        from_scratch = not self.is_pretrained and self.model.arch != VECTORS
        return min(SCRATCH_WARMUP / steps, settings.epochs / 3) if from_scratch else 0.0

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
