"""The MODEL argument of commands: a checkpoint, a timm backbone by name, or raw pixels."""

import logging
from dataclasses import dataclass
from pathlib import Path

from mltool.errors import InputError, UsageError
from mltool.files import history
from mltool.models import checkpoint
from mltool.models.embedder import Embedder, build, fingerprint

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A model in evaluation mode, and its origin for the records."""

    model: Embedder
    space: str  # names the vector space: digest of the checkpoint, or fingerprint
    inputs: tuple[tuple[str, str, str], ...]  # (option, path, digest)
    history: history.History  # of the checkpoint
    settings: dict[str, object]  # options that rebuild the model


def open_model(
    text: str,
    *,
    weights: str | None,
    pooling: str | None,
    image_size: int | None,
    resize: int | None,
    seed: int,
    keep_aspect: bool = False,
) -> Source:
    """Open the model that `text` names: a checkpoint by its path, or a backbone.

    `timm:NAME` is a backbone with timm's weights, NAME one with the file `weights`, or random from
    `seed`; the embedding is its pooled features. `pixels` is the image as a vector. Raises
    InputError for files that are no models, UsageError for options that do not fit together.
    """
    if text.endswith(".safetensors") or Path(text).is_file():
        if weights is not None or pooling is not None:
            raise UsageError("--weights and --pooling are for backbones; a checkpoint has its own")
        if keep_aspect:
            raise UsageError("--keep-aspect is for backbones; a checkpoint says itself")
        return open_checkpoint(text, image_size, resize)
    name = text.removeprefix("timm:")
    if "/" in name:
        raise InputError(f"{text}: no such file")
    if name != text and weights is None:
        weights = "timm"
    model = build(
        name,
        pooling=pooling or ("flatten" if name == "pixels" else "avg"),
        projection="none",
        dim=None,
        image_size=image_size or (32 if name == "pixels" else None),
        resize=resize,
        weights=weights,
        seed=seed,
        keep_aspect=keep_aspect,
    )
    if weights is None and name != "pixels":
        logger.warning(
            "%s has random weights (seed %d); --weights FILE|timm loads some", name, seed
        )
    return _describe_backbone(model.eval(), text, weights, seed)


def _describe_backbone(model: Embedder, text: str, weights: str | None, seed: int) -> Source:
    """Describe a backbone that `text` names, as the records need it."""
    spec, space = model.spec, fingerprint(model)
    settings: dict[str, object] = {
        "pooling": spec.pooling,
        "image_size": spec.crop,
        "seed": seed,
    }
    if weights == "timm" and not text.startswith("timm:"):
        settings["weights"] = "timm"  # a file is an input
    # with --keep-aspect no shorter side is asked for: it follows from each image
    settings |= {"keep_aspect": True} if spec.keep_aspect else {"resize": spec.resize}
    inputs = [("model", text, space)]
    if weights is not None and weights != "timm":
        inputs.append(("--weights", weights, history.digest_of_file(weights)))
    return Source(model=model, space=space, inputs=tuple(inputs), history=(), settings=settings)


def open_checkpoint(path: str, image_size: int | None = None, resize: int | None = None) -> Source:
    """Open a checkpoint, for images of another size if one is named."""
    saved = checkpoint.read(path)
    spec = saved.spec.change_size(image_size, resize)
    model = saved.build_model(spec)
    settings: dict[str, object] = {}
    if spec != saved.spec:
        settings = {"image_size": spec.crop, "resize": spec.resize}
    return Source(
        model=model,
        space=saved.digest,
        inputs=(("model", path, saved.digest),),
        history=saved.history,
        settings=settings,
    )
