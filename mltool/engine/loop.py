"""The one training loop: batch -> embeddings -> objective -> backward -> step -> log -> save.

The objective defines the loss, the streams give the batches, `Counters` hold the progress; the loop
knows no method. A run continued from saved counters takes exactly the steps it would have taken.
"""

import math
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn, optim
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from mltool import distributed
from mltool.engine import device as devices
from mltool.engine import optim as optimizers
from mltool.engine.data import Batch
from mltool.engine.device import autocast
from mltool.engine.ema import Ema
from mltool.engine.log import Log
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import Sampler
from mltool.engine.signals import Stop
from mltool.errors import Interrupted, NumericError
from mltool.moment import Moment
from mltool.progress import Progress

# Spread of the embeddings of a batch below which all images look the same to the model, and for
# how many steps in a row that may last: random weights can start there. Euclidean distances are
# the same anywhere, so vectors far from the origin may lie as near as float32 still resolves well.
COLLAPSED_SPREAD = {"cosine": 5e-4, "dot": 5e-4, "euclidean": 1e-8}
COLLAPSED_STEPS = 50

Embed = Callable[..., Tensor]  # the model, in the precision of the run


@dataclass
class Counters:
    """How far a run is: `step` batches of `epoch` are done."""

    epoch: int = 0
    step: int = 0
    best_score: float = -math.inf
    best_epoch: int = -1


@dataclass(frozen=True)
class LoopSettings:
    """What decides the course of a run."""

    epochs: int
    seed: int
    precision: str  # resolved: fp32, bf16 or fp16; fp64 is for tests
    freeze_bn: bool
    clip: float | None
    val_every: int
    patience: int | None
    from_epoch: int = 0
    to_epoch: int | None = None  # the first epoch that is left to another run, None = none is

    @property
    def end(self) -> int:
        """The epoch before which the run stops."""
        return self.epochs if self.to_epoch is None else self.to_epoch


@dataclass
class Run:
    """A run's parts: everything that steps change.

    The objective is called with the streams' batches by name, the model as `Embed`, and a Moment;
    it returns scalars by name, whose sum is minimised. Its parameters and buffers are saved.
    """

    model: nn.Module
    objective: nn.Module
    optimizer: optim.Optimizer
    scaler: torch.amp.GradScaler  # of fp16; does nothing otherwise
    ema: Ema | None
    counters: Counters
    device: torch.device
    metric: str = "cosine"  # by which embeddings are compared
    samplers: Mapping[str, Sampler] = field(default_factory=dict)  # by stream
    figures: Callable[[], dict[str, float]] = dict  # what the log says besides, of each step
    remedy: str = "try a lower --lr"  # where all embeddings become the same


def fit(
    run: Run,
    *,
    steps: int,
    batches: Callable[[int, int], Generator[Mapping[str, Batch]]],
    settings: LoopSettings,
    rates: OptimSettings,
    save: Callable[[], None],
    save_every: float,
    validate: Callable[[], float] | None,
    keep_best: Callable[[], None],
    stop: Stop,
    log: Log,
    observe: Callable[[], None] | None = None,
) -> None:
    """Train until the run's last epoch, or until validation has not improved for long enough.

    `batches(epoch, step)` yields the named streams from that step on. `save` keeps the running
    state; it is called every `save_every` seconds, when a signal asks to stop (then Interrupted is
    raised, if work is left) and after every epoch if there is validation. `observe` is called
    after every epoch and decides nothing. Raises NumericError for a loss that is not finite and for
    embeddings that have all become the same.
    """
    counters = run.counters
    stepper, saver = _Stepper(run, settings), _Saver(save, log, every=save_every)
    first, total = _count_steps(run, steps), settings.end * steps
    with (
        closing(batches(counters.epoch, counters.step)) as stream,
        Progress("train", total, unit="steps", start=first) as bar,
    ):
        while not _is_over(counters, settings):
            epoch = counters.epoch + counters.step / steps  # with fractions
            optimizers.set_rates(run.optimizer, rates, epoch=epoch, epochs=settings.epochs)
            moment = Moment(_count_steps(run, steps), counters.epoch, steps, settings.epochs)
            values = stepper(next(stream), moment)
            counters.step += 1
            log.write(step=_count_steps(run, steps), epoch=counters.epoch, values=values)
            bar.update(_count_steps(run, steps), f"loss {values['loss']:.4g}")
            ended = counters.step == steps
            if ended:
                _end_epoch(counters, settings, validate, keep_best)
                if observe is not None:
                    observe()
            asked = distributed.any_rank(stop.requested, run.device)
            saver.save(now=asked or (ended and validate is not None))
            if asked:
                distributed.barrier()  # who leaves early has the launcher kill who still saves
            if asked and not _is_over(counters, settings):
                raise Interrupted("stopped by a signal; the state is saved, go on with --resume")


class _Saver:
    """Saves the running state, behind the lines of the log that it counts as written."""

    def __init__(self, save: Callable[[], None], log: Log, *, every: float) -> None:
        self._save, self._log, self._every = save, log, every
        self._saved = time.monotonic()

    def save(self, *, now: bool) -> None:
        """Save now, or when the last time is long enough ago."""
        if now or time.monotonic() - self._saved > self._every:
            self._log.flush()
            self._save()
            self._saved = time.monotonic()


def _count_steps(run: Run, steps: int) -> int:
    """Return how many steps of the whole run are done."""
    return run.counters.epoch * steps + run.counters.step


def _end_epoch(
    counters: Counters,
    settings: LoopSettings,
    validate: Callable[[], float] | None,
    keep_best: Callable[[], None],
) -> None:
    counters.epoch, counters.step = counters.epoch + 1, 0
    due = counters.epoch % settings.val_every == 0 or counters.epoch == settings.epochs
    if validate is None or not due:
        return
    score = validate()
    if score > counters.best_score:
        counters.best_score, counters.best_epoch = score, counters.epoch
        keep_best()


def _is_over(counters: Counters, settings: LoopSettings) -> bool:
    """Return whether all epochs are done, or validation has not improved for too long."""
    if counters.epoch >= settings.end:
        return True
    if settings.patience is None or counters.best_epoch < 0 or counters.step:
        return False
    validated = counters.epoch - counters.epoch % settings.val_every
    return validated - counters.best_epoch >= settings.patience


class _Stepper:
    """One optimisation step, with the guards around it."""

    def __init__(self, run: Run, settings: LoopSettings) -> None:
        self.run, self.settings = run, settings
        self.parameters = [p for g in run.optimizer.param_groups for p in g["params"]]
        self.collapsed_steps = 0
        self.vectors: Tensor | None = None  # of the first pass of a step
        run.model.train()
        if settings.freeze_bn:
            for module in run.model.modules():
                if isinstance(module, _BatchNorm):
                    module.eval()

    def __call__(self, streams: Mapping[str, Batch], moment: Moment) -> dict[str, float]:
        """Take one step; return the loss, and its terms if there are several."""
        # dropout and the like: a function of (seed, step), as the batches are
        seed = hash((self.settings.seed, moment.step, distributed.rank()))
        devices.seed_generators(seed, self.run.device)
        on_device = {name: batch.to(self.run.device) for name, batch in streams.items()}
        self.vectors = None
        terms = self.run.objective(on_device, self._embed, moment)
        total = torch.stack(list(terms.values())).sum()
        values = self._check(terms, total)
        self.run.optimizer.zero_grad(set_to_none=True)
        self.run.scaler.scale(total).backward()
        distributed.average_gradients(self.parameters)
        if self.settings.clip is not None:
            self.run.scaler.unscale_(self.run.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, self.settings.clip)
        self.run.scaler.step(self.run.optimizer)
        self.run.scaler.update()
        if self.run.ema is not None:
            self.run.ema.update(self.run.model)
        return values | self.run.figures()

    def _embed(
        self, images: Tensor, *, weights: Mapping[str, Tensor] | None = None, **how: object
    ) -> Tensor:
        """Call the model, with other weights than those that it has if there are some."""
        with autocast(self.run.device, self.settings.precision):
            if weights is not None:
                return functional_call(self.run.model, dict(weights), (images,), how)
            vectors = self.run.model(images, **how)
        if self.vectors is None:
            self.vectors = vectors.detach()
        return vectors

    def _check(self, terms: dict[str, Tensor], total: Tensor) -> dict[str, float]:
        """Read the figures of this step from the device, in one go. Raises NumericError."""
        figures = [total, *terms.values(), self._spread()]
        loss, *each, spread = torch.stack([f.detach().float() for f in figures]).tolist()
        if not math.isfinite(loss + spread):  # a loss that compares sees nothing in NaN: it is 0
            what = f"the loss became {loss}" if math.isfinite(spread) else "the embeddings are NaN"
            raise NumericError(
                f"{what}; try a lower --lr, --warmup 1 or --clip 1 "
                f"(fp16 overflows where bf16 does not)"
            )
        collapsed = spread < COLLAPSED_SPREAD[self.run.metric]
        self.collapsed_steps = self.collapsed_steps + 1 if collapsed else 0
        if self.collapsed_steps > COLLAPSED_STEPS:
            raise NumericError(
                f"all embeddings are the same (spread {spread:.1e}); {self.run.remedy}"
            )
        named = dict(zip(terms, each, strict=True)) if len(terms) > 1 else {}
        return {"loss": loss, **named}

    def _spread(self) -> Tensor:
        """Return the mean of half the squared distances in the batch, 0 if all are the same.

        Of unit vectors it is 1 minus their mean cosine; compared by distance, vectors are scaled
        by one factor, to a mean square of 1.
        """
        if self.vectors is None or len(self.vectors) < 2:
            return torch.ones((), device=self.run.device)
        scaled = self.vectors.float()
        if self.run.metric == "euclidean":
            scaled = scaled / scaled.square().sum(1).mean().sqrt().clamp(min=1e-30)
        else:
            scaled = nn.functional.normalize(scaled)
        spread = scaled.var(dim=0).sum()
        return distributed.gather(spread.reshape(1)).mean()  # all ranks stop, or none
