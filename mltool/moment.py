"""When a step takes place in a run that learns."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Moment:
    """When a step takes place, in plain integers, so that nobody reads a counter on the device."""

    step: int  # steps taken so far in the whole run
    epoch: int
    steps: int  # an epoch, of the stream `main`
    epochs: int

    @property
    def progress(self) -> float:
        """How much of the run is done, from 0 to 1."""
        return self.step / max(1, self.steps * self.epochs)

    @property
    def ends_epoch(self) -> bool:
        """Whether the step is the last one of its epoch."""
        return (self.step + 1) % self.steps == 0
