"""The present model of a run, looked at from outside: validation, and vectors for mining."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool import distributed
from mltool.engine.data import Images, in_order, load
from mltool.engine.ema import Ema
from mltool.engine.extract import matrix


@dataclass(frozen=True)
class Validation:
    """Data that decides which epoch's weights are kept; never the test data."""

    images: Images
    select: str
    batch_size: int
    precision: str


def embedded(
    model: nn.Module,
    images: Images,
    *,
    batch_size: int,
    workers: int,
    device: torch.device,
    precision: str,
    rows: Sequence[int] | None = None,
    ema: Ema | None = None,
) -> np.ndarray:
    """Vectors [N, D] of all images, or some, by a model in training, which stays as it is.

    All ranks get the same, by the statistics of rank 0; with `ema` the averaged weights are used.
    """
    distributed.broadcast_buffers(model)
    modes = {module: module.training for module in model.modules()}
    with ema.applied(model) if ema is not None else nullcontext():
        vectors = matrix(
            model,
            images,
            batch_size=batch_size,
            workers=workers,
            device=device,
            precision=precision,
            rows=rows,
        )
    for module, training in modes.items():
        module.training = training
    return vectors


def usable(images: Images, *, workers: int, batch_size: int) -> tuple[np.ndarray, list[str]]:
    """Rows whose images can be read, and the reasons for the others."""
    batches = in_order(range(len(images.manifest)), batch_size)
    good: list[Tensor] = []
    reasons: list[str] = []
    for batch in load(images, batches, workers=workers):
        good.append(batch.rows)
        reasons += [reason for _, reason in batch.failures]
    return torch.cat(good).numpy() if good else np.empty(0, np.int64), reasons
