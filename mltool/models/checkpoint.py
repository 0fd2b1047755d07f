"""Checkpoints: a model's tensors, its spec and its history in one safetensors file."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool.errors import InputError, UsageError
from mltool.files import safetensors_file
from mltool.files.history import check
from mltool.models import spec as specs
from mltool.models.backbones import LEAST_LOADED, LoadReport, resample_positions
from mltool.models.embedder import Embedder, count_multiply_adds, count_parameters, from_spec
from mltool.models.spec import ModelSpec

logger = logging.getLogger(__name__)

FORMAT_VERSION = 1
OBJECTIVE = "objective."
OPTIMIZER = "optimizer."  # what the file keeps of its run, see `kept_run`


@dataclass(frozen=True)
class Checkpoint:
    """The contents of a checkpoint file."""

    path: str
    spec: ModelSpec
    state: dict[str, Tensor]  # of the model
    objective: dict[str, Tensor]  # learned parameters of the objective, such as proxies
    classes: tuple[str, ...]  # label texts of the training classes, in the order of the proxies
    history: tuple[dict, ...]
    digest: str

    def build_model(self, spec: ModelSpec | None = None) -> Embedder:
        """Rebuild the model, in evaluation mode; `spec` may ask for another image size.

        Raises InputError when the tensors are not those that the spec describes.
        """
        spec = spec or self.spec
        try:
            # check on the meta device first: a hostile spec must not allocate memory
            with torch.device("meta"):
                shell = from_spec(spec)
        except UsageError as error:
            raise InputError(f"{self.path}: its model cannot be built: {error}") from None
        state = resample_positions(shell.backbone, self.state, prefix="backbone.")
        check_state(shell, state, self.path)
        model = from_spec(spec)
        model.load_state_dict(state)
        return model.eval()


def write(
    path: str,
    model: Embedder,
    *,
    state: dict[str, Tensor] | None = None,
    objective: nn.Module | None = None,
    classes: tuple[str, ...] = (),
    history: tuple[dict, ...] = (),
    run_arrays: Mapping[str, np.ndarray] | None = None,
    run_facts: Mapping[str, object] | None = None,
) -> str:
    """Write a checkpoint, whole or not at all, and return its digest.

    `state` replaces the tensors of the model, as with averaged weights. `run_arrays` and
    `run_facts` are what the file keeps of the run.
    """
    arrays = to_arrays(state if state is not None else model.state_dict())
    cost = {"parameters": count_parameters(model), "multiply_adds": count_multiply_adds(model)}
    if objective is not None:
        # parameters only: buffers such as counters and memories belong to the run
        arrays |= to_arrays(dict(objective.named_parameters()), OBJECTIVE)
        cost["objective_parameters"] = count_parameters(objective)
    meta = {
        "format_version": FORMAT_VERSION,
        "spec": model.spec.to_dict(),
        "cost": cost,
        "classes": list(classes),
        "history": list(history),
    }
    if run_facts is not None:
        arrays |= dict(run_arrays or {})
        meta["run"] = dict(run_facts)
    return safetensors_file.write(path, arrays, meta=meta)


def read(path: str) -> Checkpoint:
    """Read and check a checkpoint, without what it keeps of its run.

    Raises InputError for anything else.
    """
    state, meta = read_tensors(path, select=lambda name: not name.startswith(OPTIMIZER))
    classes, steps = meta.get("classes", []), meta.get("history", [])
    if not isinstance(classes, list):
        raise InputError(f"{path}: its list of classes is damaged; train it again")
    objective = {k.removeprefix(OBJECTIVE): v for k, v in state.items() if k.startswith(OBJECTIVE)}
    return Checkpoint(
        path=path,
        spec=specs.from_dict(meta["spec"], path),
        state={k: v for k, v in state.items() if not k.startswith(OBJECTIVE)},
        objective=objective,
        classes=tuple(classes),
        history=check(steps, path),
        digest=str(meta.get("digest", "")),
    )


def read_tensors(
    path: str, *, select: Callable[[str], bool]
) -> tuple[dict[str, Tensor], safetensors_file.Meta]:
    """Read the tensors of a checkpoint whose names `select` takes, and its metadata.

    Raises InputError for what is no checkpoint, and for tensors that are not finite.
    """
    arrays, meta = safetensors_file.read(path, select=select)
    check_meta(path, meta)
    tensors = {key: torch.from_numpy(value) for key, value in arrays.items()}
    if not all(bool(value.isfinite().all()) for value in tensors.values()):
        raise InputError(f"{path}: there are NaN or infinite weights in it; train it again")
    return tensors, meta


def check_meta(path: str, meta: dict[str, object]) -> None:
    """Raise InputError for what is no checkpoint, or one of a newer format."""
    version = meta.get("format_version")
    if "spec" not in meta or not isinstance(version, int):
        raise InputError(
            f"{path}: not an mltool checkpoint (plain weights go to --weights, with --arch)"
        )
    if version > FORMAT_VERSION:
        raise InputError(f"{path}: made by a newer mltool (format {version}); upgrade mltool")


def load_state(model: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Load all tensors, strictly. Raises InputError with one sentence, not torch's listing."""
    check_state(model, state, path)
    model.load_state_dict(state)


def check_state(model: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Raise InputError unless `state` has exactly the model's tensors."""
    if odd := list_odd(model, state):
        raise InputError(f"{path}: {len(odd)} tensors do not fit its own spec, such as {odd[0]}")


def list_odd(model: nn.Module, state: dict[str, Tensor]) -> list[str]:
    """List the tensors that only one side has, or that differ in shape."""
    expected = model.state_dict()
    names = expected.keys() | state.keys()
    return sorted(name for name in names if _shape(expected, name) != _shape(state, name))


def load_matching(model: nn.Module, state: dict[str, Tensor], path: str) -> None:
    """Load the tensors of `state` that fit by name and shape, and log which did not.

    Raises InputError when they fill less than half of the model.
    """
    backbone = getattr(model, "backbone", model)
    state = resample_positions(backbone, state, prefix="backbone.")
    expected = model.state_dict()
    fits = {name: v for name, v in state.items() if _shape(expected, name) == tuple(v.shape)}
    report = LoadReport.compare(expected, state, fits)
    if len(fits) < LEAST_LOADED * len(expected):
        raise InputError(f"{path}: does not fit the model: {report}")
    model.load_state_dict(fits, strict=False)
    logger.log(logging.WARNING if report.missing else logging.INFO, "%s: %s", path, report)


def to_arrays(state: dict[str, Tensor], prefix: str = "") -> dict[str, np.ndarray]:
    """Return tensors as numpy arrays; bfloat16, which numpy lacks, as float32."""
    return {
        prefix + key: (value.float() if value.dtype == torch.bfloat16 else value)
        .detach()
        .cpu()
        .contiguous()
        .numpy()
        for key, value in state.items()
    }


def _shape(state: dict[str, Tensor], key: str) -> tuple[int, ...] | None:
    return tuple(state[key].shape) if key in state else None
