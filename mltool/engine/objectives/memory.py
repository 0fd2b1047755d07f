"""Cross-batch memory: the embeddings of earlier batches as further candidates.

Wang et al., Cross-Batch Memory for Embedding Learning, CVPR 2020.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.engine.objectives.pair_loss import Side


@dataclass(frozen=True)
class MemorySettings:
    """How many embeddings are kept, what their term counts, and from which step on."""

    size: int
    weight: float = 1.0
    start: int = 0


class Memory(nn.Module):
    """The latest `size` embeddings, detached; the oldest make room for new ones.

    It is filled after the loss was taken, so that it never holds the batch at hand, and from step
    `start` on, because embeddings of a network that still moves fast are soon out of date. Saved
    with the run.
    """

    vectors: Tensor  # [size, dim] of unit length
    labels: Tensor  # [size], -1 where nothing is yet
    place: Tensor  # scalar, where the next embedding goes

    def __init__(self, settings: MemorySettings, *, dim: int) -> None:
        super().__init__()
        self.settings = settings
        self.register_buffer("vectors", torch.zeros(settings.size, dim))
        self.register_buffer("labels", torch.full((settings.size,), -1))
        self.register_buffer("place", torch.zeros((), dtype=torch.int64))

    def side(self) -> Side:
        """All places, as candidates; one that is empty has an unknown label and pairs with none."""
        return Side(self.vectors, self.labels)

    def is_empty(self) -> bool:
        """Whether nothing was ever put in."""
        return bool((self.labels < 0).all())

    @torch.no_grad()
    def put(self, batch: Side, *, step: int) -> None:
        """Remember a batch, in its order; of one larger than the memory the last rows."""
        if step < self.settings.start:
            return
        size = self.settings.size
        vectors, labels = batch.vectors[-size:], batch.labels[-size:]
        places = (self.place + torch.arange(len(labels), device=self.place.device)) % size
        # losses of this step may still need the old values for their backward
        self.vectors = self.vectors.index_copy(0, places, functional.normalize(vectors).float())
        self.labels = self.labels.index_copy(0, places, labels)
        self.place = (self.place + len(labels)) % size
