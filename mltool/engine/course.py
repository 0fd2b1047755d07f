"""A course of epochs that several runs carry out, each from the file of the one before.

`--epochs M --from-epoch N --to-epoch P` carries out the epochs N to P - 1 of a course of M:
batches, augmentations, schedule and phases follow the number of the epoch. Where the file before
was written with `--save-optimizer` and is read with `--keep-optimizer`, both runs take the steps
that one run would have taken. With validation the file of a run holds the best weights so far; the
next run goes on from the last ones, and its file holds the best of both.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool.engine import optim
from mltool.engine.loop import LoopSettings, Run
from mltool.errors import InputError
from mltool.models import checkpoint
from mltool.models.checkpoint import OPTIMIZER, to_arrays
from mltool.models.kept_run import KeptRun, RunFacts

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Course:
    """The state that a run goes on with, None = a fresh one, and whether it keeps its last one.

    `adapt` is called once, before the first step, when that state is in the run: it may change
    parameters and, by `optim.clear_moments`, what the optimiser knows of them.
    """

    kept: KeptRun | None = None
    saves: bool = False
    adapt: Callable[[Run], None] | None = None


def begin(
    run: Run, course: Course, settings: LoopSettings, *, optimizer: str, validation: str
) -> dict[str, Tensor] | None:
    """Put the state of the run before into `run`; return the best weights so far, if it has some.

    `validation` names what decides which weights are best. Raises InputError for a state of another
    model, objective or optimiser.
    """
    best = None
    if course.kept is not None:
        _check_optimizer(course.kept, optimizer)
        _put_back(run, course.kept)
        if settings.from_epoch:
            best = _continue_counts(run, course.kept, settings, validation)
    if course.adapt is not None:
        course.adapt(run)
    return best


def pack(
    run: Run,
    state: Mapping[str, Tensor],
    *,
    optimizer: str,
    pretrained: bool,
    validation: str,
) -> tuple[dict[str, np.ndarray], RunFacts]:
    """Return what a file keeps of a run beside the model's tensors `state`, and facts of it."""
    learned = {name for name, _ in run.objective.named_parameters()}
    buffers = {k: v for k, v in run.objective.state_dict().items() if k not in learned}
    arrays = to_arrays(optim.state(run.optimizer), f"{OPTIMIZER}state.")
    arrays |= to_arrays(_select_differing(run.model.state_dict(), state), f"{OPTIMIZER}model.")
    arrays |= to_arrays(buffers, f"{OPTIMIZER}objective.")
    if run.ema is not None:
        arrays |= to_arrays(_select_differing(run.ema.averages, state), f"{OPTIMIZER}ema.")
    for name, sampler in run.samplers.items():
        arrays |= {f"{OPTIMIZER}streams.{name}.{k}": v for k, v in sampler.state().items()}
    counters = run.counters
    return arrays, RunFacts(
        optimizer=optimizer,
        pretrained=pretrained,
        epoch=counters.epoch,
        validation=validation,
        best_score=counters.best_score if counters.best_epoch >= 0 else None,
        best_epoch=counters.best_epoch,
        ema_updates=run.ema.updates if run.ema is not None else 0,
        scaler=run.scaler.state_dict(),
    )


def _select_differing(
    values: Mapping[str, Tensor], state: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the tensors that the file does not have, by name and value."""
    return {
        name: value
        for name, value in values.items()
        if name not in state or not torch.equal(value.cpu(), state[name].cpu())
    }


def _check_optimizer(kept: KeptRun, optimizer: str) -> None:
    if kept.facts.optimizer != optimizer:
        raise InputError(
            f"{kept.path} was written with --optimizer {kept.facts.optimizer}, not {optimizer}; "
            f"say --optimizer {kept.facts.optimizer}, or leave out --keep-optimizer"
        )


def _put_back(run: Run, kept: KeptRun) -> None:
    """Put weights, moments, averages and the loss scale of a file into the run."""
    _load(run.model, kept.start.state | kept.section("model."), kept.path, "model")
    objective = kept.start.objective | kept.section("objective.")
    _load(run.objective, objective, kept.path, "objective")
    optim.load_state(run.optimizer, kept.section("state."), kept.path)
    if run.ema is not None:
        source = kept.start.state | kept.section("ema.")
        if not kept.facts.ema_updates:  # there are none yet: they begin at the weights
            source = dict(run.model.named_parameters())
        for name, average in run.ema.averages.items():
            average.copy_(source[name])
        run.ema.updates = kept.facts.ema_updates
    elif kept.facts.ema_updates:
        logger.warning("%s: its averages of --ema are not continued", kept.path)
    if run.scaler.is_enabled() and kept.facts.scaler:
        run.scaler.load_state_dict(kept.facts.scaler)


def _load(module: nn.Module, state: dict[str, Tensor], path: str, what: str) -> None:
    odd = checkpoint.list_odd(module, state)
    if odd:
        raise InputError(
            f"{path}: the {what} of this run has other tensors ({len(odd)}, such as {odd[0]}); "
            f"repeat the options that made the file, or leave out --keep-optimizer"
        )
    module.load_state_dict(state)


def _continue_counts(
    run: Run, kept: KeptRun, settings: LoopSettings, validation: str
) -> dict[str, Tensor] | None:
    """Restore samplers and best score; return the weights that have this score, if any do."""
    facts = kept.facts
    if facts.epoch != settings.from_epoch:
        logger.warning(
            "%s was written before epoch %d, this run begins at epoch %d",
            *(kept.path, facts.epoch, settings.from_epoch),
        )
    for name, sampler in run.samplers.items():
        state = {key: value.numpy() for key, value in kept.section(f"streams.{name}.").items()}
        try:
            sampler.load_state(state)
        except (ValueError, KeyError) as error:
            raise InputError(
                f"{kept.path}: its stream {name} does not fit the data of this run ({error}); "
                "leave out --keep-optimizer"
            ) from None
    if facts.best_score is None or not validation:
        return None
    if facts.validation != validation:
        logger.warning("%s was validated otherwise; its best score does not count", kept.path)
        return None
    run.counters.best_score, run.counters.best_epoch = facts.best_score, facts.best_epoch
    return kept.start.state
