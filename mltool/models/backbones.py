"""Backbones: any timm network as a map from images to [B, C, H, W] features, and its weights."""

import ast
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
from mltool.models.spec import IMAGENET_MEAN, IMAGENET_STD
from mltool.options.model import VECTORS

logger = logging.getLogger(__name__)

# Weights that fill less than this share of a network's tensors are those of another network.
LEAST_LOADED = 0.5


class Pixels(nn.Module):
    """The raw-pixel baseline: the image is its own feature map."""

    num_features = 3

    def forward_features(self, images: Tensor) -> Tensor:
        """Return the images, [B, 3, H, W]."""
        return images


def create(text: str, *, image_size: int) -> nn.Module:
    """Build a timm network `NAME[:key=value,...]` without head, with random weights.

    `image_size` is the side in pixels, for networks that are built for one size. `vectors`, of a
    head, hands on what it gets. Raises UsageError for an unknown name or argument.
    """
    name, _, rest = text.partition(":")
    if name == "pixels":
        return Pixels()
    if text == VECTORS:
        return nn.Identity()
    if not timm.is_model(name):
        near = suggest(name, timm.list_models())
        raise UsageError(f"timm knows no backbone {name!r}{near}")
    arguments: dict = dict(_argument(name, item) for item in filter(None, rest.split(",")))
    # a checkpoint, which may be hostile, names its network by the same text: arguments of timm's
    # `create_model`, such as `checkpoint_path`, would make timm read other files
    if reserved := arguments.keys() & inspect.signature(timm.create_model).parameters.keys():
        raise UsageError(f"{text}: {min(reserved)} is not an argument of the network itself")
    if _has_fixed_size(name):
        arguments.setdefault("img_size", image_size)
    try:
        return timm.create_model(name, pretrained=False, num_classes=0, **arguments)
    except Exception as error:  # each network checks its arguments in its own way, or not at all
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise UsageError(f"timm cannot build {text} for {image_size} px ({reason})") from None


def channels(backbone: nn.Module) -> int:
    """Return the depth of the last feature map."""
    depth = backbone.num_features
    assert isinstance(depth, int)
    return depth


def feature_maps(backbone: nn.Module, images: Tensor) -> Tensor:
    """Compute the feature maps of any timm network, [B, 3, H, W] -> [B, C, h, w].

    Every pooling works on every backbone: patch tokens (ViT) become a map of height 1, and maps
    with the channels last (Swin) are permuted. Raises UsageError for a network of several maps.
    """
    maps = backbone.forward_features(images)  # type: ignore[operator]
    if not isinstance(maps, Tensor):
        raise UsageError(f"{type(backbone).__name__} has no single feature map; use another --arch")
    if maps.ndim == 3:
        prefix = getattr(backbone, "num_prefix_tokens", 0)
        return maps[:, prefix:].transpose(1, 2).unsqueeze(2)
    return maps.permute(0, 3, 1, 2) if getattr(backbone, "output_fmt", "") == "NHWC" else maps


def default_size(text: str) -> int:
    """Return the side of the square images that a backbone was designed for, in pixels."""
    config = _config(text)
    return int(config["input_size"][-1]) if "input_size" in config else 224


def statistics(text: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation per channel that the backbone's weights expect."""
    config = _config(text)
    return tuple(config.get("mean", IMAGENET_MEAN)), tuple(config.get("std", IMAGENET_STD))


def interpolation(text: str) -> str:
    """Return how images were resized for the backbone's weights: bicubic or bilinear."""
    return "bicubic" if _config(text).get("interpolation") == "bicubic" else "bilinear"


@dataclass(frozen=True)
class LoadReport:
    """Names of tensors: loaded, missing in the file, and left over in the file."""

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]

    @classmethod
    def compare(cls, model_state: Mapping, file_state: Mapping, loaded: Mapping) -> "LoadReport":
        """Compare the tensor names of a model, of a file, and of what was loaded from it."""
        missing = model_state.keys() - loaded.keys()
        unexpected = file_state.keys() - loaded.keys()
        return cls(tuple(sorted(loaded)), tuple(sorted(missing)), tuple(sorted(unexpected)))

    def __str__(self) -> str:
        facts = [f"{len(self.loaded)} tensors loaded"]
        for label, names in (("missing", self.missing), ("unexpected", self.unexpected)):
            if names:
                shown = ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")
                facts.append(f"{len(names)} {label} ({shown})")
        return ", ".join(facts)


def load_weights(backbone: nn.Module, source: str, *, name: str) -> LoadReport:
    """Fill a backbone from a file, or from timm's cache when `source` is `timm`.

    Keys may carry the prefixes `backbone.` or `module.`; a classifier head in the file is ignored.
    Raises InputError when the file fills less than half of the network, for damaged files and for
    pickles that hold more than tensors.
    """
    state = _read_timm(name) if source == "timm" else _read_file(source)
    state = {_strip_prefixes(key): value for key, value in state.items()}
    if not all(bool(value.isfinite().all()) for value in state.values()):
        raise InputError(f"{source}: there are NaN or infinite weights in it; use another file")
    state = resample_positions(backbone, state)
    model_state = backbone.state_dict()
    fits = {k: v for k, v in state.items() if k in model_state and v.shape == model_state[k].shape}
    report = LoadReport.compare(model_state, state, fits)
    if len(fits) < LEAST_LOADED * len(model_state):
        raise InputError(f"{source}: these are not weights of {name}: {report}")
    backbone.load_state_dict(fits, strict=False)
    level = logging.WARNING if report.missing else logging.INFO
    logger.log(level, "weights %s: %s", Path(source).name, report)
    return report


def resample_positions(
    backbone: nn.Module, state: dict[str, Tensor], *, prefix: str = ""
) -> dict[str, Tensor]:
    """Resample a ViT's position embeddings in `state` for the image size of `backbone`.

    Other states are returned as they are, for the caller to load or to report.
    """
    key = f"{prefix}pos_embed"
    saved, current = state.get(key), getattr(backbone, "pos_embed", None)
    grid = getattr(getattr(backbone, "patch_embed", None), "grid_size", None)
    if saved is None or current is None or grid is None or saved.shape == current.shape:
        return state
    prefix_tokens = current.shape[1] - math.prod(grid)  # class and registers
    patches = saved.shape[1] - prefix_tokens if saved.ndim == 3 else -1
    if patches < 1 or math.isqrt(patches) ** 2 != patches:  # not the patches of a square image
        return state
    return state | {key: resample_abs_pos_embed(saved, list(grid), num_prefix_tokens=prefix_tokens)}


def _strip_prefixes(key: str) -> str:
    for prefix in ("module.", "backbone."):
        key = key.removeprefix(prefix)
    return key


def _read_timm(name: str) -> dict[str, Tensor]:
    try:
        return timm.create_model(name.partition(":")[0], pretrained=True).state_dict()
    except Exception as error:  # hub clients raise a dozen types, all meaning: not available
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"weights of {name} are not in the cache and cannot be fetched ({reason}); fetch them "
            f"where there is a network, or give --weights FILE.safetensors"
        ) from None


def _read_file(path: str) -> dict[str, Tensor]:
    if not Path(path).is_file():
        raise InputError(f"{path}: no such file; --weights takes a .safetensors or .pth file")
    with open(path, "rb") as file:
        head = file.read(4)
    if head == b"PK\x03\x04":
        return _read_torch_zip(path)
    arrays, _ = safetensors_file.read(path)
    return {key: torch.from_numpy(value.copy()) for key, value in arrays.items()}


def _read_torch_zip(path: str) -> dict[str, Tensor]:
    """Read a state dict saved by torch, tensors only. Raises InputError for anything else."""
    try:
        # a compressed archive can unpack to any size: torch stores its entries as they are
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
    """Parse `key=value`; a value that is no Python literal is a text."""
    key, equals, value = item.partition("=")
    if not equals:
        raise UsageError(f"{name}: argument {key!r} needs a value, as in {key}=...")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _config(text: str) -> dict:
    """Return what timm knows of a backbone's weights. Raises UsageError for an unknown name."""
    name = text.partition(":")[0]
    if name == "pixels":
        return {}
    if not timm.is_model(name):
        raise UsageError(f"timm knows no backbone {name!r}{suggest(name, timm.list_models())}")
    config = timm.get_pretrained_cfg(name)
    return config.to_dict() if config is not None else {}


def _has_fixed_size(name: str) -> bool:
    """Return whether a network is built for one image size (ViT, Swin)."""
    return bool(_config(name).get("fixed_input_size"))
