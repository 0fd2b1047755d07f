"""What a checkpoint keeps of the run that made it, so that another run goes on: `optimizer.`.

Only `--keep-optimizer` reads these tensors, in sections; the model does without them:

    optimizer.state.NAME/KEY    moments of the optimiser, by parameter
    optimizer.model.NAME        weights after the last step, where the file has others
    optimizer.ema.NAME          averages, where those of the file are others
    optimizer.objective.NAME    buffers of the objective, such as a memory
    optimizer.streams.NAME.KEY  state of the samplers
"""

from dataclasses import dataclass, field

from torch import Tensor

from mltool.errors import InputError
from mltool.files import safetensors_file
from mltool.models import checkpoint
from mltool.models.checkpoint import OPTIMIZER, Checkpoint


@dataclass(frozen=True)
class RunFacts:
    """The facts of a run that the next one needs, all but tensors."""

    optimizer: str
    pretrained: bool  # whether the network had learned before the course began
    epoch: int  # of the course, before which the run ended
    validation: str = ""  # metric and digest of the images that decided what is best, "" = none did
    best_score: float | None = None
    best_epoch: int = -1
    ema_updates: int = 0
    scaler: dict[str, float] = field(default_factory=dict)

    def to_meta(self) -> dict[str, object]:
        """Return the facts as JSON holds them, without those that are absent."""
        return {key: value for key, value in vars(self).items() if value not in (None, "", {})}


@dataclass(frozen=True)
class KeptRun:
    """The state of a run at its end: what a partial holds, from the file of a model."""

    start: Checkpoint
    facts: RunFacts
    tensors: dict[str, Tensor]  # by section

    @property
    def path(self) -> str:
        """The file."""
        return self.start.path

    def section(self, prefix: str) -> dict[str, Tensor]:
        """Return the tensors of one section, without its prefix."""
        return {k.removeprefix(prefix): v for k, v in self.tensors.items() if k.startswith(prefix)}


def read_facts(path: str) -> RunFacts:
    """Read the facts of the run that wrote a checkpoint. Raises InputError where it kept none."""
    meta = safetensors_file.read_meta(path)
    checkpoint.check_meta(path, meta)
    facts = meta.get("run")
    if facts is None:
        raise InputError(
            f"{path} keeps no optimiser; write it again with --save-optimizer, or leave out "
            "--keep-optimizer"
        )
    try:
        return _parse(facts)
    except (TypeError, AttributeError):
        raise InputError(f"{path}: its facts of the run are damaged; train it again") from None


def read(path: str) -> KeptRun:
    """Read model and state of the run that wrote a checkpoint. Raises InputError."""
    facts = read_facts(path)
    state = checkpoint.read_tensors(path, select=lambda name: name.startswith(OPTIMIZER))[0]
    tensors = {name.removeprefix(OPTIMIZER): value for name, value in state.items()}
    return KeptRun(checkpoint.read(path), facts, tensors)


def _parse(facts: object) -> RunFacts:
    """Return facts of a file that anybody may have written. Raises TypeError and its like."""
    if not isinstance(facts, dict):
        raise TypeError("no object")
    parsed = RunFacts(**facts)
    numbers = (parsed.best_score or 0.0, *parsed.scaler.values())
    whole = (parsed.epoch, parsed.best_epoch, parsed.ema_updates)
    texts = (parsed.optimizer, parsed.validation)
    if (
        any(type(number) is not int for number in whole)
        or not all(isinstance(number, int | float) for number in numbers)
        or not all(isinstance(text, str) for text in texts)
        or not isinstance(parsed.pretrained, bool)
    ):
        raise TypeError("a fact of another type")
    return parsed
