"""A training run from its parts: resume or start, fit, write the model; shared by all methods."""

import logging
from collections.abc import Callable, Generator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import torch
from timm.layers import convert_sync_batchnorm
from torch import Tensor, nn

from mltool import distributed
from mltool.engine import course, loop, optim, run_state
from mltool.engine.course import Course
from mltool.engine.data import Batch, BatchSource
from mltool.engine.ema import Ema
from mltool.engine.extract import Extraction, embed_in_training
from mltool.engine.loading import report_dead_loaders
from mltool.engine.log import Log
from mltool.engine.loop import Counters, LoopSettings, Run
from mltool.engine.objectives.objective import Objective
from mltool.engine.optim import OptimSettings
from mltool.engine.probe import Probe
from mltool.engine.run_state import Identity
from mltool.engine.samplers import EmbedRows
from mltool.engine.signals import watch
from mltool.engine.streams import Stream, read_streams
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
class ExecutionOptions:
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

    source: BatchSource
    select: str
    batch_size: int
    precision: str


@dataclass(frozen=True)
class TrainingPlan:
    """What is trained: model, objective, data and the settings of the run.

    The first of `streams` is `main`, which counts the epochs.
    """

    model: Embedder
    objective: Objective
    streams: tuple[Stream, ...]
    loop: LoopSettings
    optim: OptimSettings
    ema: float | None
    pretrained: bool
    validation: Validation | None
    classes: tuple[str, ...]
    history: History  # ends with this run's record
    probe: Probe | None = None
    course: Course = field(default_factory=Course)

    @property
    def main(self) -> Stream:
        """The stream that counts the epochs."""
        return self.streams[0]


def train(plan: TrainingPlan, options: ExecutionOptions) -> None:
    """Train by a plan: `options.output` appears when it is finished.

    Raises Interrupted after saving when a signal came, NumericError, InputError (a partial of
    another run) and ResourceError.
    """
    identity = _identity(plan, options)
    logger.debug("settings: %s; %s", identity.record["settings"], identity.setting)
    if options.resume and run_state.is_finished(options.output, identity):
        logger.info("%s is finished already", options.output)
        if distributed.rank() == 0:
            run_state.discard(options.output, identity)
            atomic.end_dead_claim(options.output)
        return
    if distributed.rank() > 0:
        _fit(plan, options, identity)
        return
    with atomic.claim(options.output):
        atomic.check_writable(options.output)
        digest = _write(plan, options, _fit(plan, options, identity))
        Path(run_state.path_of(options.output)).unlink(missing_ok=True)
        logger.info("wrote %s (digest %s)", options.output, digest[:12])


def _write(plan: TrainingPlan, options: ExecutionOptions, saver: "_CheckpointSaver") -> str:
    """Write the model, and on demand the state of the run; return the digest."""
    state = saver.final()
    arrays, facts = None, None
    if plan.course.saves:
        arrays, of_run = course.pack(
            saver.run,
            state,
            optimizer=plan.optim.optimizer,
            pretrained=plan.pretrained,
            validation=_name_validation(plan),
        )
        facts = of_run.to_meta()
    return checkpoint.write(
        options.output,
        plan.model,
        state=state,
        objective=plan.objective,
        classes=plan.classes,
        history=plan.history,
        run_arrays=arrays,
        run_facts=facts,
    )


def _name_validation(plan: TrainingPlan) -> str:
    """Name what decides which weights are best: metric and images, "" without validation."""
    validation = plan.validation
    return f"{validation.select} {validation.source.manifest.digest()}" if validation else ""


def _identity(plan: TrainingPlan, options: ExecutionOptions) -> Identity:
    setting: dict[str, str | int] = {
        "torch": torch.__version__,
        "device": options.device.type,
        "threads": torch.get_num_threads(),
        "processes": distributed.world(),
        "steps": plan.main.sampler.steps,
    }
    return Identity(plan.history[-1], setting)


def _fit(plan: TrainingPlan, options: ExecutionOptions, identity: Identity) -> "_CheckpointSaver":
    """Run the loop from the state on disk, if one is; return the finished run."""
    run = _start(plan, options.device)
    saver = _CheckpointSaver(plan, options, run, identity)
    if options.resume and Path(run_state.path_of(options.output)).is_file():
        saver.best = run_state.restore(
            options.output,
            run,
            identity,
            steps=plan.main.sampler.steps,
            allow_nonidentical=options.allow_nonidentical,
        )
        logger.info("going on after epoch %d, step %d", run.counters.epoch, run.counters.step)
    else:
        saver.best = course.begin(
            run,
            plan.course,
            plan.loop,
            optimizer=plan.optim.optimizer,
            validation=_name_validation(plan),
        )
    if len(set(distributed.gather_objects((run.counters.epoch, run.counters.step)))) > 1:
        raise InputError(
            f"the processes do not see the same {run_state.path_of(options.output)}; put the "
            f"output on a file system that all of them share"
        )
    done = run.counters.epoch * plan.main.sampler.steps + run.counters.step
    log_path = options.log if distributed.rank() == 0 else None
    with watch() as stop, report_dead_loaders(), Log(log_path, after_step=done) as log:
        loop.fit(
            run,
            steps=plan.main.sampler.steps,
            batches=lambda epoch, step: _read_batches(plan, options, run, epoch, step),
            settings=plan.loop,
            rates=plan.optim,
            save=saver.save,
            save_every=options.save_every,
            validate=_validator(plan, options, run, log),
            keep_best=saver.keep_best,
            stop=stop,
            log=log,
            observe=_observer(plan, options, run, log),
        )
    return saver


def _start(plan: TrainingPlan, device: torch.device) -> Run:
    """Create the parts of a run that has not taken a step."""
    model = plan.model.to(device).to(memory_format=torch.channels_last)
    objective = plan.objective.to(device)
    if plan.loop.precision == "fp64":
        model, objective = model.double(), objective.double()
    if distributed.world() > 1 and not plan.loop.freeze_bn:
        _synchronize_statistics(model, device)
    return Run(
        model=model,
        objective=objective,
        optimizer=optim.create(model, objective, plan.optim, pretrained=plan.pretrained),
        scaler=torch.amp.GradScaler(device.type, enabled=plan.loop.precision == "fp16"),
        ema=Ema(model, decay=plan.ema) if plan.ema is not None else None,
        counters=Counters(epoch=plan.loop.from_epoch),
        device=device,
        metric=plan.model.spec.metric,
        samplers={stream.name: stream.sampler for stream in plan.streams},
        figures=plan.objective.figures,
        remedy=plan.objective.remedy,
    )


def _read_batches(
    plan: TrainingPlan, options: ExecutionOptions, run: Run, epoch: int, step: int
) -> Generator[Mapping[str, Batch]]:
    """Yield this rank's batches of all streams, from a step on."""
    how = Extraction(MINING_BATCH, options.workers, options.device, plan.loop.precision)

    def embedder_of(source: BatchSource) -> EmbedRows:
        return lambda rows: embed_in_training(run.model, source.as_test(), how, rows=rows)

    steps = plan.main.sampler.steps
    numbers = range(epoch * steps + step, plan.loop.end * steps)
    return read_streams(plan.streams, numbers, workers=options.workers, embed=embedder_of)


class _CheckpointSaver:
    """Saves the running state and remembers the best weights."""

    def __init__(
        self, plan: TrainingPlan, options: ExecutionOptions, run: Run, identity: Identity
    ) -> None:
        self.plan, self.options, self.run, self.identity = plan, options, run, identity
        self.best: dict[str, Tensor] | None = None

    def save(self) -> None:
        """Replace the partial on disk; rank 0 writes for all. Raises NumericError."""
        self._check_finite()
        if distributed.rank() == 0:
            run_state.save(self.options.output, self.run, self.best, self.identity)

    def keep_best(self) -> None:
        """Remember the present weights."""
        self.best = self._weights()

    def final(self) -> dict[str, Tensor]:
        """Return the weights of the best epoch, or of the last one without validation."""
        return self.best if self.best is not None else self._weights()

    def _weights(self) -> dict[str, Tensor]:
        self._check_finite()
        model, ema = self.run.model, self.run.ema
        # not by the names of the averages: a state may join several parameters to one tensor
        with ema.apply_to(model) if ema is not None else nullcontext():
            return {key: of.detach().cpu().clone() for key, of in model.state_dict().items()}

    def _check_finite(self) -> None:
        """Raise NumericError for weights spoiled by a gradient that was not finite."""
        values = [*self.run.model.state_dict().values(), *self.run.objective.parameters()]
        if not all(bool(value.isfinite().all()) for value in values):
            raise NumericError("the weights are not finite; try a lower --lr or --clip 1")


def _validator(
    plan: TrainingPlan, options: ExecutionOptions, run: Run, log: Log
) -> Callable[[], float] | None:
    validation = plan.validation
    if validation is None:
        return None
    manifest = validation.source.manifest
    how = Extraction(validation.batch_size, options.workers, options.device, validation.precision)

    def validate() -> float:
        vectors = embed_in_training(run.model, validation.source, how, ema=run.ema)
        figures = score(
            vectors,
            manifest.labels,
            manifest.names,
            metrics=[validation.select],
            metric=plan.model.spec.metric,
        )
        epoch = run.counters.epoch
        _log_epoch(plan, log, epoch, {f"val/{name}": each for name, each in figures.items()})
        logger.info("epoch %d: %s %.4f", epoch, validation.select, figures[validation.select])
        return figures[validation.select]

    return validate


def _observer(
    plan: TrainingPlan, options: ExecutionOptions, run: Run, log: Log
) -> Callable[[], None] | None:
    """Return what the plan's probe does after an epoch."""
    probe = plan.probe
    if probe is None:
        return None
    how = Extraction(probe.batch_size, options.workers, options.device, probe.precision)

    def observe() -> None:
        epoch = run.counters.epoch
        if epoch % probe.every and epoch < plan.loop.epochs:
            return
        figures = probe.measure(embed_in_training(run.model, probe.source, how, ema=run.ema))
        _log_epoch(plan, log, epoch, {f"probe/{name}": each for name, each in figures.items()})
        for name, value in figures.items():
            logger.info("epoch %d: probe, %s %.4f", epoch, name, value)

    return observe


def _log_epoch(plan: TrainingPlan, log: Log, epoch: int, values: dict[str, float]) -> None:
    """Write figures of the model after `epoch` epochs."""
    log.write(step=epoch * plan.main.sampler.steps, epoch=epoch - 1, values=values)


def _synchronize_statistics(model: nn.Module, device: torch.device) -> None:
    """Let batch normalisation see the batches of all GPUs; warn that on a CPU it cannot."""
    if device.type == "cuda":
        convert_sync_batchnorm(model)  # timm's: torch's drops the activation of a fused layer
    elif distributed.rank() == 0 and has_batch_norm(model):
        logger.warning(
            "batch normalisation sees each process's own part of the batch, so the result differs "
            "from one process's; --freeze-bn avoids that"
        )
