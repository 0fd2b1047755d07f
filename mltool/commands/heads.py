"""Heads on cached vectors: which models are heads, how one is built, which vectors it takes."""

import logging
from pathlib import Path

from mltool.commands.training_options import DEFAULT_DIM, TrainingOptions
from mltool.errors import InputError
from mltool.files import safetensors_file
from mltool.files.cached_vectors import CachedVectors
from mltool.files.manifest import Manifest
from mltool.models import checkpoint, learners
from mltool.models.embedder import Embedder, build_head
from mltool.models.spec import ModelSpec
from mltool.options import heads
from mltool.options.model import VECTORS, ModelOptions

logger = logging.getLogger(__name__)


def is_head(model: str) -> bool:
    """Return whether the MODEL of a command is a checkpoint of a head. Raises InputError."""
    if not model.endswith(".safetensors") or not Path(model).is_file():
        return False
    spec = safetensors_file.read_meta(model).get("spec")
    return isinstance(spec, dict) and spec.get("backbone") == VECTORS


def learns_head(model: ModelOptions) -> bool:
    """Return whether a run trains a head: a new one, or one that it starts from."""
    if model.arch is not None or model.init is None:
        return model.arch == VECTORS
    return is_head(model.init)


def build(
    options: TrainingOptions,
    manifest: Manifest,
    *,
    default_dim: int | None = None,
    parts: str | None = None,
) -> Embedder:
    """Build the head to start from on the vectors of a list: a new one, or a checkpoint's.

    `parts` is how the vector is divided, None = as in the checkpoint.

    Raises UsageError for options that are for images, InputError for vectors of another model than
    those that the checkpoint takes.
    """
    heads.refuse_head_options(options.model, options.objective, options.images, options.losses)
    stored, init = CachedVectors(manifest), options.model.init
    start = checkpoint.read(init) if init is not None else None
    if start is not None and not start.spec.takes_vectors:
        raise InputError(f"{init} takes images; start a head on vectors from a head, or from none")
    if start is not None:
        check_input(start.spec, stored, head=start.path)
    projection = options.model.projection or (start.spec.projection if start else "linear")
    usual_dim = default_dim or (start.spec.dim if start else DEFAULT_DIM)
    spec = ModelSpec.describe_head(
        stored.dim,
        projection=projection,
        dim=options.model.dim or (stored.dim if projection == "none" else usual_dim),
        space=stored.space,
        metric=stored.metric,
        parts=parts if parts is not None else start.spec.parts if start else "",
    )
    model = build_head(spec, seed=options.execution.seed)
    if start is not None:
        state = learners.keep_fitting(start.state, start.spec.parts, spec.parts)
        checkpoint.load_matching(model, state, start.path)
    return model


def check_input(spec: ModelSpec, stored: CachedVectors, *, head: str) -> None:
    """Raise InputError unless a head takes these vectors; warn where it cannot be known."""
    file = stored.files[0]
    remedy = "embed the images with the model whose vectors the head was trained on"
    if spec.channels != stored.dim:
        raise InputError(
            f"{head} takes {spec.channels}-d vectors, but {file} has {stored.dim}-d ones; {remedy}"
        )
    if spec.input_metric != stored.metric:
        raise InputError(
            f"{head} takes vectors compared by {spec.input_metric}, but those of {file} are "
            f"compared by {stored.metric}; {remedy}"
        )
    if not spec.input_space or not stored.space:
        unknown = file if spec.input_space else head
        logger.warning("%s does not say of which model its vectors are; they may not fit", unknown)
    elif spec.input_space != stored.space:
        raise InputError(
            f"{head} takes vectors of the space {_shorten(spec.input_space)}, but {file} holds "
            f"those of {_shorten(stored.space)}; {remedy}"
        )


def _shorten(space: str) -> str:
    digest, slash, rest = space.partition("/")
    return digest[:12] + slash + rest
