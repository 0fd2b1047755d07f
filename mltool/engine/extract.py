"""From images to vectors, batch by batch, with bounded memory."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool import distributed
from mltool.engine.data import Images, in_order, load, reporting_dead_loaders
from mltool.models.embedder import ImageBatch
from mltool.models.spec import ModelSpec

# Batches below this many images may round differently from larger ones, so that a shard's last
# rows would differ from the whole's; they are filled up with copies.
LEAST_BATCH = 8


@dataclass(frozen=True)
class Block:
    """The vectors of some rows; `kept` is false where an image could not be read."""

    vectors: np.ndarray  # [n, views D] float32, zero rows where not kept
    kept: np.ndarray  # [n] bool
    failures: tuple[str, ...]


def blocks(
    model: nn.Module,
    images: Images,
    rows: Sequence[int],
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    views: int = 1,
) -> Iterator[Block]:
    """Yield the embeddings of `rows` in order, one block per batch of `batch_size` rows.

    Of more than one view, a row holds those of its image's first draws one after the other.
    `model` maps uint8 [B, 3, H, W] to [B, D] and is put into evaluation mode. `precision` is
    fp32, bf16 or fp16; vectors are float32 in any case. Raises InputError for an unreadable image
    unless `images` skips them.
    """
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    model.eval()
    loaded = load(images, in_order(rows, batch_size, views=views), workers=workers)
    with reporting_dead_loaders():
        for items, batch in zip(in_order(rows, batch_size), loaded, strict=True):
            kept = np.isin([row for row, _ in items], batch.rows.numpy())
            with (
                torch.inference_mode(),
                torch.autocast(device.type, half, enabled=half is not None),
            ):
                vectors = _embed(model, batch.to(device).images)
            filled = np.zeros((len(items), views * vectors.shape[1]), np.float32)
            found = vectors[: len(batch.rows)].float().cpu().numpy()
            filled[kept] = found.reshape(-1, filled.shape[1])
            yield Block(filled, kept, tuple(dict(batch.failures).values()))


def _embed(model: nn.Module, images: ImageBatch) -> Tensor:
    spec: ModelSpec = model.spec  # type: ignore[assignment]
    if not isinstance(images, Tensor) or (spec.keep_aspect and len(images)):
        # alone, because the sizes of others must not decide how many go through together
        return torch.cat([model(image.unsqueeze(0)) for image in images])
    if len(images) >= LEAST_BATCH:
        return model(images)
    if not len(images):
        images = images.new_zeros(1, 3, spec.crop, spec.crop)
    return model(images[torch.arange(LEAST_BATCH, device=images.device) % len(images)])


def matrix(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    rows: Sequence[int] | None = None,
) -> np.ndarray:
    """Embeddings [N, D] of all or some rows; under torchrun each rank embeds its part of them."""
    rows = range(len(images.manifest)) if rows is None else rows
    size = -(-len(rows) // distributed.world())
    mine = rows[distributed.rank() * size : (distributed.rank() + 1) * size]
    found = blocks(
        model,
        images,
        mine,
        batch_size=batch_size,
        workers=workers,
        device=device,
        precision=precision,
    )
    parts = [block.vectors for block in found]
    own = np.concatenate(parts) if parts else None
    return np.concatenate([part for part in distributed.gather_objects(own) if part is not None])
