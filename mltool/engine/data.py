"""From an image list to batches: decoding, caching, augmenting."""

import copy
import hashlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from torch import Generator, Tensor
from torch.utils.data import Dataset

from mltool import components
from mltool.engine.cache import PixelCache
from mltool.engine.samplers import Rows
from mltool.errors import InputError
from mltool.files import crop_boxes, images
from mltool.files.locations import describe
from mltool.files.manifest import WEIGHTS, Manifest
from mltool.models.embedder import ModelInputs
from mltool.models.spec import ModelSpec
from mltool.transforms import resize_longer, resize_shorter, to_tensor

LEARNER = "learner"  # a column that a sampler of clusters adds

Augmentation = Callable[[Tensor, Generator], Tensor]


@dataclass(frozen=True)
class Batch:
    """The inputs of one step, of training or extraction, and what belongs to them."""

    inputs: ModelInputs  # images, uint8, of one size or of unequal sizes; the first view of each
    labels: Tensor  # [B] int64, -1 unknown
    rows: Tensor  # [B] int64, into the manifest; they stay on the CPU
    draws: Tensor  # [B] int64, which draw of its image each is; on the CPU too
    failures: tuple[tuple[int, str], ...] = ()  # (row, reason) of images left out
    columns: dict[str, Tensor] = field(default_factory=dict)  # [B, ...] by name; on the CPU
    # [V_g, B, 3, S_g, S_g] uint8 for each size of crops, the largest first; of one view none
    views: tuple[Tensor, ...] = ()

    @property
    def learner(self) -> int | None:
        """The learner whose part of the vector learns from this batch, None = the whole vector."""
        column = self.columns.get(LEARNER)
        return int(column[0]) if column is not None and column[0] >= 0 else None

    def stack_inputs(self) -> Tensor:
        """Return the inputs as one tensor [B, ...]; images must be of one size."""
        assert isinstance(self.inputs, Tensor), "images of unequal sizes"
        return self.inputs

    def to(self, device: torch.device) -> "Batch":
        """Move inputs, views and labels to a device; rows, draws and columns stay on the CPU."""
        views = tuple(group.to(device, non_blocking=True) for group in self.views)
        inputs = views[0][0] if views else _move(self.inputs, device)
        return replace(self, inputs=inputs, labels=self.labels.to(device), views=views)


def _move(inputs: ModelInputs, device: torch.device) -> ModelInputs:
    if isinstance(inputs, Tensor):
        return inputs.to(device, non_blocking=True)
    return tuple(image.to(device, non_blocking=True) for image in inputs)


class BatchSource(Protocol):
    """What batches are read from, by rows and draws; loading processes call it."""

    manifest: Manifest

    def __getitems__(self, items: Rows) -> Batch | str:
        """Load one batch, or say why an item cannot be read."""
        ...

    def as_test(self) -> "BatchSource":
        """Return the same items as a model sees them in a test."""
        ...


def plain_view(spec: ModelSpec) -> Augmentation:
    """Return how a model sees images in a test: their centre, or with `keep_aspect` all of them."""
    text = "whole:flip=0" if spec.keep_aspect else "center"
    return components.load("augmentations", text, size=spec.crop)


@runtime_checkable
class MultiView(Protocol):
    """An augmentation of several views, each made by one of `views`, the largest crops first."""

    views: Sequence[Augmentation]


def split_views(augmentation: Augmentation, count: int) -> Sequence[Augmentation]:
    """Return what makes each view: the views of a multi-view augmentation, else `count` alike."""
    if isinstance(augmentation, MultiView):
        return augmentation.views
    return (augmentation,) * count


class Images(Dataset):
    """Images of a manifest, prepared for a model; items are lists of (row, draw).

    Of several augmentations, as `split_views` gives them, each makes one view of every image;
    batches then carry `views`, and views of one number must be of one size. With `distinct_draws`,
    draw d shows the pixels of draw d modulo that number, as a cached teacher saw them. Batches
    carry those of `columns` that the manifest has. Raises InputError for a column that holds no
    numbers.
    """

    def __init__(
        self,
        manifest: Manifest,
        spec: ModelSpec,
        augmentation: Augmentation | Sequence[Augmentation],
        *,
        seed: int,
        cache: bool = False,
        skip_bad: bool = False,
        distinct_draws: int | None = None,
        columns: Sequence[str] = WEIGHTS,
    ) -> None:
        self.manifest, self.spec = manifest, spec
        several = augmentation if isinstance(augmentation, Sequence) else (augmentation,)
        self.augmentations = tuple(several)
        self.seed, self.skip_bad, self.distinct_draws = seed, skip_bad, distinct_draws
        self.columns = read_columns(manifest, columns)
        self.boxes = crop_boxes.from_columns(manifest.columns)
        # half as much again as a square: the usual photograph is 4:3
        size = spec.resize * spec.resize * (3 if spec.keep_aspect else 9 / 2)
        self.cache = PixelCache(len(manifest), bytes_per_image=int(size)) if cache else None

    def __getitems__(self, items: Rows) -> Batch | str:
        """Load one batch; why an image cannot be read travels as text, which crosses processes."""
        pixels: list[list[Tensor]] = []  # of each image its views
        loaded: list[tuple[int, int]] = []
        failures: list[tuple[int, str]] = []
        for row, draw in items:
            try:
                pixels.append(self._augment(row, draw))
                loaded.append((row, draw))
            except InputError as error:
                if not self.skip_bad:
                    return str(error)
                failures.append((row, str(error)))
        rows = np.array([row for row, _ in loaded], np.int64)
        draws = torch.tensor([draw for _, draw in loaded], dtype=torch.int64)
        labels = torch.from_numpy(self.manifest.labels[rows])
        columns = {name: torch.from_numpy(of[rows]) for name, of in self.columns.items()}
        views = _stack_views(pixels) if len(self.augmentations) > 1 else ()
        inputs = views[0][0] if views else _stack([first for first, *_ in pixels])
        return Batch(inputs, labels, torch.from_numpy(rows), draws, tuple(failures), columns, views)

    def as_test(self) -> "Images":
        """Return the same images, and what is cached of them, as a model sees them in a test."""
        other = copy.copy(self)
        other.augmentations = (plain_view(self.spec),)
        return other

    def prepare(self, row: int) -> Tensor:
        """Return the image before augmentation, uint8 [3, H, W].

        Its shorter side is `spec.resize`, or with `keep_aspect` its longer side that at most.
        """
        cached = self.cache.get(row) if self.cache is not None else None
        if cached is not None:
            return to_tensor(cached)
        size = self.spec.resize
        image = to_tensor(self._pixels(row, size))
        resize = resize_longer if self.spec.keep_aspect else resize_shorter
        image = resize(image, size, interpolation=self.spec.interpolation)
        if self.cache is not None:
            self.cache.put(row, image.permute(1, 2, 0).numpy())
        return image

    def _pixels(self, row: int, at_least: int) -> np.ndarray:
        """Load what the list's crop box leaves of the image: uint8 [H, W, 3]."""
        location = self.manifest.paths[row]
        if self.boxes is None or np.isnan(self.boxes[row, 0]):
            return images.load(location, at_least=at_least)
        # the box is in pixels of the whole image, so its decoder must not shrink it
        return crop_boxes.crop(images.load(location), self.boxes[row], name=describe(location))

    def _augment(self, row: int, draw: int) -> list[Tensor]:
        """Return the views of an image, uint8 [3, H, W] each."""
        if self.distinct_draws is not None:
            draw %= self.distinct_draws
        image, name = self.prepare(row), self.manifest.names[row]
        return [
            augment(image, Generator().manual_seed(_seed(self.seed, name, draw, view)))
            for view, augment in enumerate(self.augmentations)
        ]


def _stack_views(images: list[list[Tensor]]) -> tuple[Tensor, ...]:
    """Stack the views of images to one tensor [V_g, B, 3, S_g, S_g] for each size of crops."""
    views = [torch.stack(view) for view in zip(*images, strict=True)]
    groups = itertools.groupby(views, key=lambda view: view.shape)
    return tuple(torch.stack(list(group)) for _, group in groups)


def _stack(images: list[Tensor]) -> ModelInputs:
    if not images:
        return torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    if all(image.shape == images[0].shape for image in images):
        return torch.stack(images)
    return tuple(images)


def read_columns(manifest: Manifest, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the columns [N] of numbers that a list has of some names. Raises InputError."""
    return {name: _read_column(manifest, name) for name in names if name in manifest.columns}


def _read_column(manifest: Manifest, name: str) -> np.ndarray:
    """Return a column [N] of numbers. Raises InputError."""
    column = manifest.columns[name]
    if name in WEIGHTS:
        return _check_weights(column, name)
    if column.dtype.kind not in "iuf":
        raise InputError(f"the column `{name}` of the image list must hold numbers")
    return column


def _check_weights(column: np.ndarray, name: str) -> np.ndarray:
    """Return a column of weights [N] float32, an empty cell counting 1. Raises InputError."""
    weights = np.nan_to_num(column.astype(np.float32), nan=1.0, posinf=-1.0)
    if bad := np.count_nonzero(weights < 0):
        raise InputError(
            f"{bad} images have a {name} that is negative or infinite; mend the column `{name}`"
        )
    return weights


def _seed(seed: int, name: bytes, draw: int, view: int = 0) -> int:
    # the first view is seeded as an only one
    drawn = b"%d" % draw if view == 0 else b"%d/%d" % (draw, view)
    key = b"%d %s %s" % (seed, drawn, name)
    return int.from_bytes(hashlib.blake2b(key, digest_size=8).digest(), "big") >> 1
