"""From images to vectors, batch by batch, with bounded memory."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool import distributed
from mltool.engine.data import BatchSource, Images
from mltool.engine.device import autocast
from mltool.engine.ema import Ema
from mltool.engine.loading import batch_rows, load, report_dead_loaders
from mltool.models.embedder import ModelInputs
from mltool.models.modes import switch_to_eval
from mltool.models.spec import ModelSpec

# Batches below this many images may round differently from larger ones, so that a shard's last
# rows would differ from the whole's; they are filled up with copies.
LEAST_BATCH = 8


@dataclass(frozen=True)
class Extraction:
    """How images are embedded: batches of `batch_size`, loaded by `workers` processes."""

    batch_size: int
    workers: int
    device: torch.device
    precision: str  # fp32, bf16 or fp16; vectors are float32 in any case


@dataclass(frozen=True)
class Block:
    """The vectors of some rows; `kept` is false where an image could not be read."""

    vectors: np.ndarray  # [n, views D] float32, zero rows where not kept
    kept: np.ndarray  # [n] bool
    failures: tuple[str, ...]


def embed_blocks(
    model: nn.Module, images: BatchSource, rows: Sequence[int], how: Extraction, *, views: int = 1
) -> Iterator[Block]:
    """Yield the embeddings of `rows` in order, one block per batch.

    With several views, a row holds the vectors of its image's first draws one after the other.
    `model` maps inputs [B, ...] to [B, D] and is put into evaluation mode. Raises InputError
    for an unreadable image unless `images` skips them.
    """
    model.eval()
    loaded = load(images, batch_rows(rows, how.batch_size, views=views), workers=how.workers)
    with report_dead_loaders():
        for items, batch in zip(batch_rows(rows, how.batch_size), loaded, strict=True):
            kept = np.isin([row for row, _ in items], batch.rows.numpy())
            with torch.inference_mode(), autocast(how.device, how.precision):
                vectors = _embed(model, batch.to(how.device).inputs)
            filled = np.zeros((len(items), views * vectors.shape[1]), np.float32)
            readable = vectors[: len(batch.rows)].float().cpu().numpy()
            filled[kept] = readable.reshape(-1, filled.shape[1])
            yield Block(filled, kept, tuple(dict(batch.failures).values()))


def _embed(model: nn.Module, inputs: ModelInputs) -> Tensor:
    spec: ModelSpec = model.spec  # type: ignore[assignment]
    if not isinstance(inputs, Tensor) or (spec.keep_aspect and len(inputs)):
        # alone, because the sizes of others must not decide how many go through together
        return torch.cat([model(image.unsqueeze(0)) for image in inputs])
    if len(inputs) >= LEAST_BATCH:
        return model(inputs)
    if not len(inputs):
        inputs = inputs.new_zeros(1, *spec.input_shape)
    return model(inputs[torch.arange(LEAST_BATCH, device=inputs.device) % len(inputs)])


def embed_rows(
    model: nn.Module, images: BatchSource, how: Extraction, *, rows: Sequence[int] | None = None
) -> np.ndarray:
    """Return the embeddings [N, D] of all rows or some; each rank embeds an equal share of them."""
    rows = range(len(images.manifest)) if rows is None else rows
    size = -(-len(rows) // distributed.world())
    rows_of_rank = rows[distributed.rank() * size : (distributed.rank() + 1) * size]
    blocks = [block.vectors for block in embed_blocks(model, images, rows_of_rank, how)]
    joined = np.concatenate(blocks) if blocks else None
    return np.concatenate(
        [vectors for vectors in distributed.gather_objects(joined) if vectors is not None]
    )


def embed_in_training(
    model: nn.Module,
    images: BatchSource,
    how: Extraction,
    *,
    rows: Sequence[int] | None = None,
    ema: Ema | None = None,
) -> np.ndarray:
    """Return the vectors [N, D] of a model in training, which goes on as if nothing had happened.

    All ranks get the same, by the statistics of rank 0; with `ema` the averaged weights are used.
    """
    distributed.broadcast_buffers(model)
    averaged = ema.apply_to(model) if ema is not None else nullcontext()
    with switch_to_eval(model), averaged:
        return embed_rows(model, images, how, rows=rows)


def find_readable(images: Images, *, workers: int, batch_size: int) -> tuple[np.ndarray, list[str]]:
    """Return the rows whose images can be read, and the reasons why the others cannot."""
    batches = batch_rows(range(len(images.manifest)), batch_size)
    readable: list[Tensor] = []
    reasons: list[str] = []
    for batch in load(images, batches, workers=workers):
        readable.append(batch.rows)
        reasons += [reason for _, reason in batch.failures]
    return torch.cat(readable).numpy() if readable else np.empty(0, np.int64), reasons
