"""A training run from its parts: resume or start, fit, write the model; shared by all methods."""

import logging
from collections.abc import Callable, Generator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from mltool import distributed
from mltool.engine import loop, optim, run_state
from mltool.engine.data import Batch, Images
from mltool.engine.ema import Ema
from mltool.engine.extract import Extraction, embed_in_training
from mltool.engine.loading import load, report_dead_loaders
from mltool.engine.log import Log
from mltool.engine.loop import Counters, LoopSettings, Run
from mltool.engine.mining import EmbedRows, Mining
from mltool.engine.optim import OptimSettings
from mltool.engine.run_state import Identity
from mltool.engine.samplers import Rows, Sampler
from mltool.engine.signals import watch
from mltool.errors import InputError, NumericError
from mltool.files import atomic
from mltool.files.history import History
from mltool.models import checkpoint
from mltool.models.embedder import Embedder
from mltool.models.modes import has_batch_norm
from mltool.retrieval.scoring import score

logger = logging.getLogger(__name__)

MINING_BATCH = 64  # images embedded at a time for mining


@dataclass(frozen=True)
class Runtime:
    """How a run is carried out; nothing here changes what it computes, but for the device."""

    output: str
    resume: bool
    allow_nonidentical: bool
    save_every: float
    log: str | None
    workers: int
    device: torch.device


@dataclass(frozen=True)
class Validation:
    """Data that decides which epoch's weights are kept; never the test data."""

    images: Images
    select: str
    batch_size: int
    precision: str


@dataclass(frozen=True)
class Plan:
    """What is trained: model, objective, data and the settings of the run."""

    model: Embedder
    objective: nn.Module
    images: Images
    sampler: Sampler
    loop: LoopSettings
    rates: OptimSettings
    ema: float | None
    pretrained: bool
    validation: Validation | None
    classes: tuple[str, ...]
    history: History  # ends with this run's record
    mining: Mining | None = None  # makes the tuples that the sampler deals


def train(plan: Plan, runtime: Runtime) -> None:
    """Carry out a plan: `runtime.output` appears when it is finished.

    Raises Interrupted after saving when a signal came, NumericError, InputError (a partial of
    another run) and ResourceError.
    """
    identity = _identity(plan, runtime)
    logger.debug("settings: %s; %s", identity.record["settings"], identity.setting)
    if runtime.resume and run_state.is_finished(runtime.output, identity):
        logger.info("%s is finished already", runtime.output)
        if distributed.rank() == 0:
            run_state.discard(runtime.output, identity)
        return
    if distributed.rank() > 0:
        _fit(plan, runtime, identity)
        return
    with atomic.claim(runtime.output):
        atomic.check_writable(runtime.output)
        state = _fit(plan, runtime, identity)
        digest = checkpoint.write(
            runtime.output,
            plan.model,
            state=state,
            objective=plan.objective,
            classes=plan.classes,
            history=plan.history,
        )
        Path(run_state.path_of(runtime.output)).unlink(missing_ok=True)
        logger.info("wrote %s (digest %s)", runtime.output, digest[:12])


def _identity(plan: Plan, runtime: Runtime) -> Identity:
    setting: dict[str, str | int] = {
        "torch": torch.__version__,
        "device": runtime.device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "steps": plan.sampler.steps,
    }
    return Identity(plan.history[-1], setting)


def _fit(plan: Plan, runtime: Runtime, identity: Identity) -> dict[str, Tensor]:
    """Run the loop from where the state on disk is; returns the weights to keep."""
    run = _start(plan, runtime.device)
    keeper = _Keeper(plan, runtime, run, identity)
    if runtime.resume and Path(run_state.path_of(runtime.output)).is_file():
        keeper.best = run_state.restore(
            runtime.output,
            run,
            identity,
            steps=plan.sampler.steps,
            allow_nonidentical=runtime.allow_nonidentical,
        )
        logger.info("going on after epoch %d, step %d", run.counters.epoch, run.counters.step)
    if len(set(distributed.gather_objects((run.counters.epoch, run.counters.step)))) > 1:
        raise InputError(
            f"the processes do not see the same {run_state.path_of(runtime.output)}; put the "
            f"output on a file system that all of them share"
        )
    done = run.counters.epoch * plan.sampler.steps + run.counters.step
    log_path = runtime.log if distributed.rank() == 0 else None
    with watch() as stop, report_dead_loaders(), Log(log_path, after_step=done) as log:
        loop.fit(
            run,
            steps=plan.sampler.steps,
            batches=lambda epoch, step: _stream(plan, runtime, run, epoch, step),
            settings=plan.loop,
            rates=plan.rates,
            save=keeper.save,
            save_every=runtime.save_every,
            validate=_validator(plan, runtime, run, log),
            keep_best=keeper.keep_best,
            stop=stop,
            log=log,
        )
    return keeper.final()


def _start(plan: Plan, device: torch.device) -> Run:
    """The parts of a run that has not taken a step."""
    model = plan.model.to(device).to(memory_format=torch.channels_last)
    objective = plan.objective.to(device)
    if distributed.world() > 1 and not plan.loop.freeze_bn:
        _synchronise_statistics(model, device)
    return Run(
        model=model,
        objective=objective,
        optimizer=optim.create(model, objective, plan.rates, pretrained=plan.pretrained),
        scaler=torch.amp.GradScaler(device.type, enabled=plan.loop.precision == "fp16"),
        ema=Ema(model, decay=plan.ema) if plan.ema is not None else None,
        counters=Counters(),
        device=device,
        metric=plan.model.spec.metric,
    )


def _stream(
    plan: Plan, runtime: Runtime, run: Run, epoch: int, step: int
) -> Generator[Mapping[str, Batch]]:
    """The batches of this rank from a step on, across epochs, so that loading never pauses.

    Only where an epoch's tuples depend on the model, the next epoch waits for the present one.
    """
    steps = plan.sampler.steps
    first, total = epoch * steps + step, plan.loop.epochs * steps
    while first < total:
        stop = total
        if plan.mining is not None:
            plan.mining.begin(first // steps, _embedder(plan, runtime, run))
            stop = (first // steps + 1) * steps
        # what a sampler has to find out first is not for the moment in which loaders are forked
        plan.sampler.batch(*divmod(first, steps))
        for batch in load(plan.images, _own(plan, range(first, stop)), workers=runtime.workers):
            yield {"main": batch}
        first = stop


def _own(plan: Plan, numbers: range) -> Iterator[Rows]:
    """This rank's part of the batches of some steps."""
    for number in numbers:
        batch = plan.sampler.batch(*divmod(number, plan.sampler.steps))
        size = len(batch) // distributed.world()
        yield batch[distributed.rank() * size : (distributed.rank() + 1) * size]


def _embedder(plan: Plan, runtime: Runtime, run: Run) -> EmbedRows:
    """The present model as a function from rows of the image list to vectors."""
    assert plan.mining is not None
    images = plan.mining.images
    how = Extraction(MINING_BATCH, runtime.workers, runtime.device, plan.loop.precision)
    return lambda rows: embed_in_training(run.model, images, how, rows=rows)


class _Keeper:
    """Saves the running state and remembers the best weights."""

    def __init__(self, plan: Plan, runtime: Runtime, run: Run, identity: Identity) -> None:
        self.plan, self.runtime, self.run, self.identity = plan, runtime, run, identity
        self.best: dict[str, Tensor] | None = None

    def save(self) -> None:
        """Replace the partial on disk; rank 0 speaks for all. Raises NumericError."""
        self._check_finite()
        if distributed.rank() == 0:
            run_state.save(self.runtime.output, self.run, self.best, self.identity)

    def keep_best(self) -> None:
        """Remember the present weights."""
        self.best = self._weights()

    def final(self) -> dict[str, Tensor]:
        """The weights of the best epoch, or of the last one without validation."""
        return self.best if self.best is not None else self._weights()

    def _weights(self) -> dict[str, Tensor]:
        self._check_finite()
        averages = self.run.ema.averages if self.run.ema is not None else {}
        state = self.run.model.state_dict() | averages
        return {key: value.detach().cpu().clone() for key, value in state.items()}

    def _check_finite(self) -> None:
        """A finite loss can have a gradient that is not: such weights are never kept."""
        values = [*self.run.model.state_dict().values(), *self.run.objective.parameters()]
        if not all(bool(value.isfinite().all()) for value in values):
            raise NumericError("the weights are not finite; try a lower --lr or --clip 1")


def _validator(plan: Plan, runtime: Runtime, run: Run, log: Log) -> Callable[[], float] | None:
    validation = plan.validation
    if validation is None:
        return None
    manifest = validation.images.manifest
    how = Extraction(validation.batch_size, runtime.workers, runtime.device, validation.precision)

    def validate() -> float:
        vectors = embed_in_training(run.model, validation.images, how, ema=run.ema)
        figures = score(
            vectors,
            manifest.labels,
            manifest.names,
            metrics=[validation.select],
            metric=plan.model.spec.metric,
        )
        epoch = run.counters.epoch
        log.write(
            step=epoch * plan.sampler.steps,
            epoch=epoch - 1,
            values={f"val/{name}": value for name, value in figures.items()},
        )
        logger.info("epoch %d: %s %.4f", epoch, validation.select, figures[validation.select])
        return figures[validation.select]

    return validate


def _synchronise_statistics(model: nn.Module, device: torch.device) -> None:
    """Let batch normalisation see the batches of all GPUs; on a CPU say that it cannot."""
    if device.type == "cuda":
        convert_sync_batchnorm(model)  # timm's: torch's drops the activation of a fused layer
    elif distributed.rank() == 0 and has_batch_norm(model):
        logger.warning(
            "batch normalisation sees each process's own part of the batch, so the result differs "
            "from one process's; --freeze-bn avoids that"
        )
