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
    """A model ready to embed, and where it came from."""

    model: Embedder
    space: str  # names its vector space
    inputs: tuple[tuple[str, str, str], ...]  # (option, path, digest) for the history
    history: history.History
    settings: dict[str, object]  # what the command line must say to get it again


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
    """Build the model that `text` names.

    A path is a checkpoint. `timm:NAME` is a backbone with timm's weights, NAME one with `weights`
    or else random from `seed`; its pooled features are the embedding. `pixels` is the image.
    Raises InputError and UsageError.
    """
    if text.endswith(".safetensors") or Path(text).is_file():
        if weights is not None or pooling is not None:
            raise UsageError("--weights and --pooling are for backbones; a checkpoint has its own")
        if keep_aspect:
            raise UsageError("--keep-aspect is for backbones; a checkpoint says itself")
        return _from_checkpoint(text, image_size, resize)
    name = text.removeprefix("timm:")
    if name != text and weights is None:
        weights = "timm"
    if "/" in name:
        raise InputError(f"{text}: no such file")
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
    space = fingerprint(model)
    settings: dict[str, object] = {
        "weights": "timm" if weights == "timm" and name == text else None,
        "pooling": model.spec.pooling,
        "image_size": model.spec.crop,
        "seed": seed,
    }
    # whole images have no shorter side of their own
    settings |= {"keep_aspect": True} if keep_aspect else {"resize": model.spec.resize}
    given = [("model", text, space)]
    if weights is not None and weights != "timm":
        given.append(("--weights", weights, history.digest_of_file(weights)))
    return Source(
        model=model.eval(),
        space=space,
        inputs=tuple(given),
        history=(),
        settings=settings,
    )


def _from_checkpoint(path: str, image_size: int | None, resize: int | None) -> Source:
    found = checkpoint.read(path)
    spec = found.spec.resized(image_size, resize)
    model = found.build_model(spec)
    changed: dict[str, object] = {}
    if spec != found.spec:
        changed = {"image_size": spec.crop, "resize": spec.resize}
    return Source(
        model=model,
        space=found.digest,
        inputs=(("model", path, found.digest),),
        history=found.history,
        settings=changed,
    )
