"""The running state of a training run, `<out>.partial`, and whether a run may continue from it."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from mltool.engine import optim
from mltool.engine.loop import Counters, Run
from mltool.errors import InputError
from mltool.files import canonical_json, history, safetensors_file
from mltool.models.checkpoint import load_state, to_arrays

FORMAT_VERSION = 2
Array = TypeVar("Array")
SUFFIX = ".partial"

# Settings that change the result, yet may be changed to go on (on another machine, say).
CHANGEABLE = (
    "batch_size",
    "classes_per_batch",
    "images_per_class",
    "memory_start",  # in steps, an epoch unless said otherwise
    "precision",
    "unlabeled_batch_size",
)


@dataclass(frozen=True)
class Identity:
    """What must agree before a run is continued.

    `record` is the provenance record of the run. `setting` is what the bytes depend on although
    it does not belong into a history: threads, device, library versions.
    """

    record: history.Record
    setting: dict[str, str | int]


def path_of(output: str) -> str:
    """Return the path of an output's running state."""
    return output + SUFFIX


def is_finished(output: str, identity: Identity) -> bool:
    """Return whether `output` exists and was made by exactly this run."""
    if not Path(output).is_file():
        return False
    steps = history.read(output)
    return bool(steps) and _is_same(steps[-1], identity.record)


def discard(output: str, identity: Identity) -> None:
    """Remove the state of a finished run that was killed before it could do so itself."""
    path = Path(path_of(output))
    if path.is_file() and _is_same(safetensors_file.read_meta(path).get("record"), identity.record):
        path.unlink()


def _is_same(then: object, now: object) -> bool:
    return canonical_json.digest(then) == canonical_json.digest(now)


def save(output: str, run: Run, best: dict[str, Tensor] | None, identity: Identity) -> None:
    """Replace the running state on disk by the present one."""
    arrays = to_arrays(run.model.state_dict(), "model.")
    arrays |= to_arrays(run.objective.state_dict(), "objective.")
    arrays |= to_arrays(optim.state(run.optimizer), "optimizer.")
    for name, sampler in run.samplers.items():
        arrays |= {f"streams.{name}.{key}": value for key, value in sampler.state().items()}
    if run.ema is not None:
        arrays |= to_arrays(run.ema.averages, "ema.")
    if best is not None:
        arrays |= to_arrays(best, "best.")
    counters = dataclasses.asdict(run.counters)
    if run.counters.best_epoch < 0:
        del counters["best_score"]  # minus infinity is not JSON
    meta = {
        "partial_version": FORMAT_VERSION,
        "counters": counters,
        "ema_updates": run.ema.updates if run.ema is not None else 0,
        "scaler": run.scaler.state_dict(),
        "record": identity.record,
        "setting": identity.setting,
    }
    safetensors_file.write(path_of(output), arrays, meta=meta)


def restore(
    output: str, run: Run, identity: Identity, *, steps: int, allow_nonidentical: bool
) -> dict[str, Tensor] | None:
    """Put the state on disk into `run`; return the best weights so far, if validation kept any.

    Raises InputError when the partial is damaged or belongs to another run, saying what differs.
    """
    path = path_of(output)
    safetensors_file.verify(path, full=True)
    arrays, meta = safetensors_file.read(path)
    if meta.get("partial_version") != FORMAT_VERSION:
        raise InputError(f"{path}: not a state of this version of mltool; delete it to start over")
    _check(path, meta, identity, allow_nonidentical)
    state = {key: torch.from_numpy(value) for key, value in arrays.items()}
    load_state(run.model, _section(state, "model."), path)
    load_state(run.objective, _section(state, "objective."), path)
    optim.load_state(run.optimizer, _section(state, "optimizer."), path)
    for name, sampler in run.samplers.items():
        try:
            sampler.load_state(_section(arrays, f"streams.{name}."))
        except ValueError as error:
            raise InputError(f"{path}: its stream {name} does not fit: {error}") from None
    if run.ema is not None:
        for name, value in _section(state, "ema.").items():
            run.ema.averages[name].copy_(value)
    _load_counts(run, meta, steps)
    return _section(state, "best.") or None


def _load_counts(run: Run, meta: dict, steps: int) -> None:
    if run.ema is not None:
        run.ema.updates = meta["ema_updates"]
    if run.scaler.is_enabled() and meta["scaler"]:
        run.scaler.load_state_dict(meta["scaler"])
    run.counters = Counters(**meta["counters"])
    # another batch size has another number of steps: go on at the same part of the epoch
    run.counters.step = run.counters.step * steps // meta["setting"]["steps"]


def _check(path: str, meta: dict, identity: Identity, allow_nonidentical: bool) -> None:
    then, now = _split(meta.get("record")), _split(identity.record)
    differing = canonical_json.differences(then[0], now[0])
    if differing:
        raise InputError(
            f"{path} belongs to a run with other settings ({'; '.join(differing)}); repeat that "
            f"command, or leave out --resume to start over"
        )
    differing = canonical_json.differences(then[1], now[1]) + canonical_json.differences(
        meta["setting"], identity.setting
    )
    if differing and not allow_nonidentical:
        raise InputError(
            f"{path} was made under other conditions ({'; '.join(differing)}), so the end would "
            f"not have the same bytes; --allow-nonidentical goes on all the same"
        )


def _split(record: object) -> tuple[object, object]:
    """Split a record into one without its changeable settings, and these."""
    if not isinstance(record, dict) or not isinstance(record.get("settings"), dict):
        return record, None
    settings = dict(record["settings"])
    changeable = {key: settings.pop(key, None) for key in CHANGEABLE}
    return record | {"settings": settings, "inputs": _name_inputs(record.get("inputs"))}, changeable


def _name_inputs(inputs: object) -> object:
    """Return the inputs of a record such that a message can say which of them differ."""
    if not isinstance(inputs, list):
        return inputs
    named: dict[str, str] = {}
    for item in inputs:
        option, short = str(item.get("option")), str(item.get("digest"))[:12]
        before = f"{named[option]}, " if option in named else ""
        named[option] = f"{before}{item.get('name')} {short}"
    return named


def _section(state: dict[str, Array], prefix: str) -> dict[str, Array]:
    """Return what belongs to one part of the state, without its prefix."""
    return {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
