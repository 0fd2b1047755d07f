"""The model: images -> backbone -> pooling -> projection -> unit vectors.

The chain with its shapes, for a ResNet-50 at 224 pixels with `projection=linear` and `dim=512`:

    images                      [B, 3, 224, 224]   uint8
    _maps: pixels, backbone     [B, 2048, 7, 7]    feature maps
    _pool: before, pooling      [B, 2048]          pooled features, what `penultimate` returns
    after                       [B, 512]           raw embeddings
    forward                     [B, 512]           embeddings of unit length
    forward(part=k)             [B, 512 / K]       what learner k sees, of slices; of unit length

A projection acts either on the maps (`before`, a 1x1 convolution) or on the pooled features
(`after`). A block on feature maps belongs in `_pool`, which every pass goes through: with and
without a hook at a stage, to the embeddings and to the pooled features alone.

A head takes the pooled features of another model, cached vectors, as its input: its backbone and
its pooling hand them on as they are.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode

from mltool import components
from mltool.errors import UsageError
from mltool.models import backbones, learners, projections, stages
from mltool.models.modes import hold_still, keep_statistics, switch_to_eval
from mltool.models.precision import widen
from mltool.models.spec import ModelSpec
from mltool.models.stages import StageHook

# images [B, 3, H, W], or B images [3, H_b, W_b] of unequal sizes; of a head vectors [B, D]
ModelInputs = Tensor | Sequence[Tensor]


class Embedder(nn.Module):
    """Images [B, 3, H, W], uint8 or float in 0..255, to embeddings [B, dim] in float32.

    Images of unequal sizes come as a sequence of [3, H, W]; those of one size are stacked for the
    pass. Mean and standard deviation are applied here, on the device, so that loaders move bytes.
    With `spec.normalize` the embeddings have unit length.

    A head, see `ModelSpec.takes_vectors`, takes vectors [B, D] instead, exactly as they are stored.
    """

    mean: Tensor
    scale: Tensor

    def __init__(self, spec: ModelSpec, backbone: nn.Module) -> None:
        super().__init__()
        self.spec = spec
        self.backbone = backbone
        self.pooling = _create_pooling(spec)
        pooled = spec.channels
        if not spec.takes_vectors:
            pooled = _count_pooled_features(spec.channels, spec.pooling, spec.crop)
        projection = projections.create(spec.projection, channels=pooled, dim=spec.dim)
        self.before, self.after = projection.before, projection.after
        self.parts = learners.create_parts(spec)
        if self.parts is not None and self.parts.cuts_projection:
            self.after = projections.slice_linear(self.after, self.parts.count)
        mean, std = (torch.tensor(of)[None, :, None, None] for of in (spec.mean, spec.std))
        self.register_buffer("mean", 255 * mean, persistent=False)
        self.register_buffer("scale", 1 / (255 * std), persistent=False)

    def forward(
        self,
        images: ModelInputs,
        *,
        raw: bool = False,
        tap: StageHook | None = None,
        part: int | None = None,
        hold_backbone: bool = False,
    ) -> Tensor:
        """Embed images, float32 [B, dim]; `raw` leaves out the unit length.

        `tap` keeps the activations of a stage or replaces them. Replaced activations have no image
        behind them, so the running statistics of batch normalisation stay as they are. `part` asks
        for that part of the vector instead, [B, D'], of unit length by itself. `hold_backbone`
        lets the backbone stand still: it gets no gradient, and its statistics stay as they are.
        """
        replaces = tap is not None and tap.replacement is not None
        with keep_statistics(self) if replaces else nullcontext():
            pooled = self.penultimate(images, tap=tap, hold_backbone=hold_backbone)
            vectors = widen(self._project(pooled, part))
        return functional.normalize(vectors) if self.spec.normalize and not raw else vectors

    def penultimate(
        self, images: ModelInputs, *, tap: StageHook | None = None, hold_backbone: bool = False
    ) -> Tensor:
        """Return the pooled features before the projection [B, C], not normalised."""
        if not isinstance(images, Tensor):
            assert tap is None, "maps of unequal sizes are no single tensor"
            return apply_by_size(partial(self.penultimate, hold_backbone=hold_backbone), images)
        with hold_still(self.backbone) if hold_backbone else nullcontext():
            maps = self._maps(images) if tap is None else self._maps_through(images, tap)
        return self._pool(maps)

    def _project(self, pooled: Tensor, part: int | None) -> Tensor:
        """Return raw vectors of pooled features: whole ones [B, D], or a part of them [B, D']."""
        if self.parts is None:
            assert part is None, "a model without parts"
            return self.after(pooled)
        if part is None:
            return self.parts.whole(self.after(pooled))
        if self.parts.cuts_projection:
            vectors = projections.project_slice(self.after, pooled, part)
            if vectors is not None:
                return vectors
        return self.parts(self.after(pooled), part)

    def _maps(self, images: Tensor) -> Tensor:
        """Return the feature maps of the backbone, [B, 3, H, W] -> [B, C, h, w]; vectors pass."""
        if self.spec.takes_vectors:
            return self.backbone(images.to(self.mean.dtype))
        pixels = (images.float() - self.mean) * self.scale
        pixels = pixels.contiguous(memory_format=torch.channels_last)
        return backbones.feature_maps(self.backbone, pixels)

    def _maps_through(self, images: Tensor, tap: StageHook) -> Tensor:
        """Return the feature maps with the hook at its stage."""
        if tap.stage == stages.INPUT:
            return self._maps(tap.pass_on(images))
        if tap.stage == stages.LAST:
            return tap.pass_on(self._maps(images)) if tap.replacement is None else tap.replacement
        with stages.attach(self.backbone, tap):
            return self._maps(images)

    def _pool(self, maps: Tensor) -> Tensor:
        """Pool feature maps, [B, C, h, w] -> [B, C]; blocks on the maps come first."""
        return self.pooling(self.before(maps))


def _create_pooling(spec: ModelSpec) -> Callable[..., Tensor]:
    """Create the pooling of a spec; vectors pass. Raises UsageError where nothing can be pooled."""
    if spec.takes_vectors:
        if spec.projection == "conv":
            raise UsageError("projection conv is for feature maps; vectors have none")
        return nn.Identity()
    if spec.pooling == "flatten" and (spec.backbone != "pixels" or spec.projection == "conv"):
        raise UsageError("pooling flatten is for --arch pixels without a conv projection")
    return components.load("poolings", spec.pooling, channels=spec.channels)


def apply_by_size(function: Callable[[Tensor], Tensor], images: Sequence[Tensor]) -> Tensor:
    """Apply `function` to images [3, H, W], stacked where their sizes are equal.

    Rows are in the order of the images, and equal those of one image at a time up to rounding.
    """
    rows_of: dict[torch.Size, list[int]] = defaultdict(list)
    for row, image in enumerate(images):
        rows_of[image.shape].append(row)
    outputs = [function(torch.stack([images[row] for row in rows])) for rows in rows_of.values()]
    order = torch.tensor([row for rows in rows_of.values() for row in rows]).argsort()
    return torch.cat(outputs)[order.to(outputs[0].device)]


def from_spec(spec: ModelSpec) -> Embedder:
    """Build the model that a spec describes, with random weights."""
    return Embedder(spec, backbones.create(spec.backbone, image_size=spec.crop))


def build_head(spec: ModelSpec, *, seed: int) -> Embedder:
    """Build a new head on vectors, random from `seed`."""
    torch.manual_seed(seed)
    return from_spec(spec)


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
    parts: str = "",
) -> Embedder:
    """Build a new model: random from `seed`, then `weights` in the backbone.

    `weights` is a file, `timm`, or None. `dim=None` keeps the length of the pooled features.
    Without `image_size` the crop is as large as the backbone was designed for, without `resize` the
    shorter side is 8/7 of the crop, the field's 256 for 224. Raises UsageError for names and
    arguments that timm or a component refuses, and for `keep_aspect` with a network for squares.
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
        dim=dim or _count_pooled_features(channels, pooling, crop),
        resize=crop if keep_aspect else resize or round(crop * 8 / 7),
        crop=crop,
        mean=mean,
        std=std,
        # timm's weights expect timm's resizing; a network from scratch takes the faster one
        interpolation="bilinear" if weights is None else backbones.interpolation(arch),
        keep_aspect=keep_aspect,
        parts=parts,
    )
    model = Embedder(spec, backbone)
    if keep_aspect:
        _check_takes_any_shape(model)
    if weights is not None:
        backbones.load_weights(backbone, weights, name=arch)
    return model


@torch.no_grad()
def _check_takes_any_shape(model: Embedder) -> None:
    """Raise UsageError for a backbone that takes images of one shape only."""
    spec = model.spec
    try:
        with switch_to_eval(model):
            model(torch.zeros(1, 3, spec.crop, max(1, spec.crop * 3 // 4)))
    except (AssertionError, RuntimeError):  # timm's networks refuse each in their way
        raise UsageError(
            f"{spec.backbone} takes images of one shape only; leave out --keep-aspect or use a "
            "convolutional --arch"
        ) from None


def _count_pooled_features(channels: int, pooling: str, crop: int) -> int:
    """Return the length of the pooled features; only `flatten` keeps the positions."""
    flat = components.parse("poolings", pooling).name == "flatten"
    return channels * crop * crop if flat else channels


def count_parameters(model: nn.Module) -> int:
    """Count the numbers that are learned."""
    return sum(p.numel() for p in model.parameters())


@torch.no_grad()
def count_multiply_adds(model: Embedder) -> int:
    """Count the multiply-adds for one input: an image of the model's size, or a vector."""
    blank = torch.zeros(1, *model.spec.input_shape, device=model.mean.device)
    with switch_to_eval(model), FlopCounterMode(display=False) as counter:
        model(blank)
    return counter.get_total_flops() // 2


def fingerprint(model: Embedder) -> str:
    """Return the sha256 that names the vector space of a model without a file.

    Hashed are the blocks behind the backbone and all weights, random or timm's.
    """
    sha = hashlib.sha256(_list_blocks(model.spec).encode())
    for name, value in sorted(model.state_dict().items()):
        sha.update(name.encode())
        sha.update(value.detach().cpu().contiguous().numpy().tobytes())
    return sha.hexdigest()


def _list_blocks(spec: ModelSpec) -> str:
    """List the blocks behind the backbone; one that is absent must leave the text as it is."""
    return " ".join(filter(None, (spec.pooling, spec.projection, spec.parts)))
