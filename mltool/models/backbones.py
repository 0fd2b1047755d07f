"""Backbones: any timm network as a map from images to [B, C, H, W] features, and its weights."""

import inspect
import logging
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from timm.layers import resample_abs_pos_embed
from torch import Tensor, nn

from mltool.components import suggest
from mltool.errors import InputError, UsageError
from mltool.files import safetensors_file

logger = logging.getLogger(__name__)

# Less than this share of a backbone's tensors found in the file is not a load but an accident.
LEAST_LOADED = 0.5


class Pixels(nn.Module):
    """The raw-pixel baseline: the image is its own feature map."""

    num_features = 3

    def forward_features(self, images: Tensor) -> Tensor:
        """The images themselves, [B, 3, H, W]."""
        return images


def create(text: str, *, image_size: int) -> nn.Module:
    """A timm network `NAME[:key=value,...]` without head, with random weights.

    Raises UsageError for an unknown name or argument.
    """
    name, _, rest = text.partition(":")
    if name == "pixels":
        return Pixels()
    if not timm.is_model(name):
        near = suggest(name, timm.list_models())
        raise UsageError(f"timm knows no backbone {name!r}{near}")
    arguments: dict = dict(_argument(name, item) for item in filter(None, rest.split(",")))
    # a checkpoint names its network in the same way and must not make timm read other files
    if reserved := arguments.keys() & inspect.signature(timm.create_model).parameters.keys():
        raise UsageError(f"{text}: {min(reserved)} is not an argument of the network itself")
    if _fixed_size(name):
        arguments.setdefault("img_size", image_size)
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # each network checks its arguments in its own way, or not at all
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"timm cannot build {text} for {image_size} px ({reason})") from None


def channels(backbone: nn.Module) -> int:
    """Depth of the last feature map."""
    depth = backbone.num_features
    assert isinstance(depth, int)
    return depth


def feature_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """[B, 3, H, W] -> [B, C, h, w] of any timm network.

    Token models (ViT) give their patch tokens as a map of height 1, channels-last models (Swin)
    are permuted, so that every pooling works on every backbone.
    """
    maps = backbone.forward_features(images)  # type: ignore[operator]
    if not isinstance(maps, Tensor):
        raise UsageError(f"{type(backbone).__name__} has no single feature map; use another --arch")
    if maps.ndim == 3:
        prefix = getattr(backbone, "num_prefix_tokens", 0)
        return maps[:, prefix:].transpose(1, 2).unsqueeze(2)
    return maps.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "") == "NHWC" else maps


def default_size(text: str) -> int:
    """The side of the square images that a backbone was designed for, in pixels."""
    config = _config(text)
    return int(config["input_size"][-1]) if "input_size" in config else 224


def statistics(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation per channel that the backbone's weights expect."""
    from mltool.models.spec import IMAGENET_MEAN, IMAGENET_STD

    config = _config(text)
    return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))


def interpolation(text: str) -> str:
    """How images were resized for the backbone's weights: bicubic or bilinear."""
    return "bicubic" if _config(text).get("interpolation") == "bicubic" else "bilinear"


@dataclass(frozen=True)
class LoadReport:
    """What a load of weights did, tensor by tensor."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @classmethod
    def compare(cls, own: Mapping, given: Mapping, fits: Mapping) -> "LoadReport":
        """Compare a model's tensor names with a file's; `fits` are those that were taken."""
        missing, unexpected = own.keys() - fits.keys(), given.keys() - fits.keys()
        return cls(tuple(sorted(fits)), tuple(sorted(missing)), tuple(sorted(unexpected)))

    def __str__(self) -> str:
        parts = [f"{len(self.loaded)} tensors loaded"]
        for label, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                parts.append(f"{len(names)} {label} ({shown})")
        return ", ".join(parts)


def load_weights(backbone: nn.Module, source: str, *, name: str) -> LoadReport:
    """Fill a backbone from a file, or from timm's cache when `source` is `timm`.

    Keys may carry the prefixes `backbone.` or `module.`; a classifier head in
    the file is expected and ignored. Raises InputError when less than half of the network is
    found, for damaged files and for pickles that need more than tensors.
    """
    state = _from_timm(name) if source == "timm" else _from_file(source)
    state = {_plain(key): value for key, value in state.items()}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise InputError(f"{source}: there are NaN or infinite weights in it; use another file")
    state = resample_positions(backbone, state)
    own = backbone.state_dict()
    fits = {k: v for k, v in state.items() if k in own and v.shape == own[k].shape}
    report = LoadReport.compare(own, state, fits)
    if len(fits) < LEAST_LOADED * len(own):
        raise InputError(f"{source}: these are not weights of {name}: {report}")
    backbone.load_state_dict(fits, strict=False)
    level = logging.WARNING if report.missing else logging.INFO
    logger.log(level, "weights %s: %s", Path(source).name, report)
    return report


def resample_positions(
    backbone: nn.Module, state: dict[str, Tensor], *, prefix: str = ""
) -> dict[str, Tensor]:
    """`state` with a ViT's table of positions resampled for the image size of `backbone`."""
    key = f"{prefix}pos_embed"
    given, own = state.get(key), getattr(backbone, "pos_embed", None)
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if given is None or own is None or grid is None or given.shape == own.shape:
        return state
    others = own.shape[1] - math.prod(grid)  # class and register tokens
    count = given.shape[1] - others if given.ndim == 3 else -1
    if count < 1 or math.isqrt(count) ** 2 != count:  # nothing that covers a square image
        return state
    return state | {key: resample_abs_pos_embed(given, list(grid), num_prefix_tokens=others)}


def _plain(key: str) -> str:
    for prefix in ("module.", "backbone."):
        key = key.removeprefix(prefix)
    return key


def _from_timm(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name.partition(":")[0], pretrained=True).state_dict()
    except Exception as error:  # hub clients raise a dozen types, all meaning: not to be had
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights of {name} are not in the cache and cannot be fetched ({reason}); fetch them "
            f"where there is a network, or give --weights FILE.safetensors"
        ) from None


def _from_file(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; --weights takes a .safetensors or .pth file")
    with open(path, "rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        return _from_torch_zip(path)
    arrays, _ = safetensors_file.read(path)
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}


def _from_torch_zip(path: str) -> dict[str, Tensor]:
    """A state dict saved by torch: tensors-only unpickling, after a look at the archive."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
        stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in entries)
        size = sum(entry.file_size for entry in entries)
        if not stored or size > Path(path).stat().st_size:
            raise InputError(f"{path}: a compressed archive is not a torch checkpoint")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # hostile archives and pickles raise nearly anything
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise InputError(f"{path}: not a plain state dict of tensors ({reason})") from None
    for key in ("state_dict", "model"):
        if isinstance(state, dict) and isinstance(state.get(key), dict):
            state = state[key]
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise InputError(f"{path}: not a plain state dict of tensors; save model.state_dict()")
    return state


def _argument(name: str, item: str) -> tuple[str, object]:
    import ast

    key, equals, value = item.partition("=")
    if not equals:
        raise UsageError(f"{name}: argument {key!r} needs a value, as in {key}=...")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _config(text: str) -> dict:
    name = text.partition(":")[0]
    if name == "pixels":
        return {}
    if not timm.is_model(name):
        raise UsageError(f"timm knows no backbone {name!r}{suggest(name, timm.list_models())}")
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config is not None else {}


def _fixed_size(name: str) -> bool:
    """Whether a network is built for one image size (ViT, Swin) and must be told ours."""
    return bool(_config(name).get("fixed_input_size"))
