"""The model: images -> backbone -> pooling -> projection -> unit vectors."""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mltool import components
from mltool.errors import UsageError
from mltool.models import backbones, projections, stages
from mltool.models.modes import keep_statistics, switch_to_eval
from mltool.models.spec import ModelSpec
from mltool.models.stages import StageHook

ImageBatch = Tensor | Sequence[Tensor]  # [B, 3, H, W], or B images [3, H_b, W_b]


class Embedder(nn.Module):
    """Images [B, 3, H, W], uint8 or float in 0..255, to embeddings [B, dim] in float32.

    Images of unequal sizes come as a sequence of [3, H, W]; those of a size go through together.
    Mean and standard deviation are taken off here, on the device, so that loaders move bytes.
    With `spec.normalize` the embeddings have unit length.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        if spec.pooling == "flatten" and (spec.backbone != "pixels" or spec.projection == "conv"):
            raise UsageError("pooling flatten is for --arch pixels without a conv projection")
        self.pooling = components.load("poolings", spec.pooling, channels=spec.channels)
        pooled = _pooled_length(spec.channels, spec.pooling, spec.crop)
        projection = projections.create(spec.projection, channels=pooled, dim=spec.dim)
        self.before, self.after = projection.before, projection.after
        shape = (1, 3, 1, 1)
        mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
        self.register_buffer("mean", 255 * mean.reshape(shape), persistent=False)
        self.register_buffer("scale", 1 / (255 * std.reshape(shape)), persistent=False)

    def forward(
        self, images: ImageBatch, *, raw: bool = False, tap: StageHook | None = None
    ) -> Tensor:
        """Embeddings [B, dim], float32; `raw` leaves them as long as they are.

        A `tap` listens at a stage, or replaces what comes by: no images are behind such values, so
        the statistics of batch normalisation are not moved by them.
        """
        made_up = tap is not None and tap.replacement is not None
        with keep_statistics(self) if made_up else nullcontext():
            vectors = self.after(self.penultimate(images, tap=tap)).float()
        return functional.normalize(vectors) if self.spec.normalize and not raw else vectors

    def penultimate(self, images: ImageBatch, *, tap: StageHook | None = None) -> Tensor:
        """Pooled features before the projection [B, C], not normalised."""
        if not isinstance(images, Tensor):
            assert tap is None, "maps of unequal sizes are no single tensor"
            return by_size(self.penultimate, images)
        maps = self._maps(images) if tap is None else self._tapped_maps(images, tap)
        return self.pooling(self.before(maps))

    def _maps(self, images: Tensor) -> Tensor:
        pixels = (images.float() - self.mean) * self.scale
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return backbones.feature_maps(self.backbone, pixels)

    def _tapped_maps(self, images: Tensor, tap: StageHook) -> Tensor:
        if tap.stage == stages.INPUT:
            return self._maps(tap.through(images))
        if tap.stage == stages.LAST:
            return tap.through(self._maps(images)) if tap.replacement is None else tap.replacement
        with stages.attach(self.backbone, tap):
            return self._maps(images)


def by_size(function: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Tensor:
    """What `function` makes of images [3, H, W], stacked where their sizes are equal.

    Rows are in the order of the images, and equal those of one image at a time up to rounding.
    """
    rows_of: dict[torch.Size, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image.shape].append(row)
    parts = [function(torch.stack([images[row] for row in rows])) for rows in rows_of.values()]
    place = torch.tensor([row for rows in rows_of.values() for row in rows]).argsort()
    return torch.cat(parts)[place.to(parts[0].device)]


def from_spec(spec: ModelSpec) -> Embedder:
    """Build the model that a spec describes, with random weights."""
    return Embedder(spec, backbones.create(spec.backbone, image_size=spec.crop))


def build(
    arch: str,
    *,
    pooling: str,
    projection: str,
    dim: int | None,
    image_size: int | None,
    resize: int | None,
    weights: str | None,
    seed: int,
    keep_aspect: bool = False,
) -> Embedder:
    """A new model: random from `seed`, then `weights` (a file, `timm`, or None) in the backbone.

    `dim=None` keeps the pooled length. Sizes left out are the backbone's own, and a shorter side
    of 8/7 of the crop, the field's 256 for 224. Raises UsageError where `keep_aspect` meets a
    network for squares only.
    """
    if keep_aspect and resize is not None:
        raise UsageError("--resize is for centre crops; leave it out with --keep-aspect")
    crop = image_size or backbones.default_size(arch)
    torch.manual_seed(seed)
    backbone = backbones.create(arch, image_size=crop)
    channels = backbones.channels(backbone)
    mean, std = backbones.statistics(arch)
    spec = ModelSpec(
        backbone=arch,
        channels=channels,
        pooling=components.parse("poolings", pooling).text,
        projection=projection,
        dim=dim or _pooled_length(channels, pooling, crop),
        resize=crop if keep_aspect else resize or round(crop * 8 / 7),
        crop=crop,
        mean=mean,
        std=std,
        # how timm resized for its weights; a network from scratch takes the faster way
        interpolation="bilinear" if weights is None else backbones.interpolation(arch),
        keep_aspect=keep_aspect,
    )
    model = Embedder(spec, backbone)
    if keep_aspect:
        _check_takes_any_shape(model)
    if weights is not None:
        backbones.load_weights(backbone, weights, name=arch)
    return model


@torch.no_grad()
def _check_takes_any_shape(model: Embedder) -> None:
    spec = model.spec
    try:
        with switch_to_eval(model):
            model(torch.zeros(1, 3, spec.crop, max(1, spec.crop * 3 // 4)))
    except (AssertionError, RuntimeError):  # timm's own, in words of its own
        raise UsageError(
            f"{spec.backbone} takes images of one shape only; leave out --keep-aspect or use a "
            "convolutional --arch"
        ) from None


def _pooled_length(channels: int, pooling: str, crop: int) -> int:
    """The channels, unless the pooling keeps the positions of the raw pixels."""
    flat = components.parse("poolings", pooling).name == "flatten"
    return channels * crop * crop if flat else channels


def count_parameters(model: nn.Module) -> int:
    """How many numbers are learned."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: Embedder) -> int:
    """Multiply-adds of one image at the model's own size."""
    blank = torch.zeros(1, 3, model.spec.crop, model.spec.crop, device=model.mean.device)
    with switch_to_eval(model), FlopCounterMode(display=False) as counter:
        model(blank)
    return counter.get_total_flops() // 2


def fingerprint(model: Embedder) -> str:
    """sha256 of the weights, for models that were never a file (random or timm weights)."""
    sha = hashlib.sha256(f"{model.spec.pooling} {model.spec.projection}".encode())
    for name, value in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()
