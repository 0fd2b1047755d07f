"""Rows of earlier batches, the oldest of which make room for new ones."""

import torch
from torch import Tensor, nn


class Queue(nn.Module):
    """The latest `size` rows put in, [size, D]; any number may be put at a time.

    It begins with `rows`. All of it is saved with the run.
    """

    rows: Tensor  # [size, D]
    count: Tensor  # scalar, the rows put in so far; modulo size the slot of the next one

    def __init__(self, rows: Tensor) -> None:
        super().__init__()
        self.register_buffer("rows", rows)
        self.register_buffer("count", torch.zeros((), dtype=torch.int64))
        self._is_full = False

    @property
    def is_full(self) -> bool:
        """Whether no row that it began with is left."""
        if not self._is_full:  # what is full stays so, and need not be read from the device again
            self._is_full = int(self.count) >= len(self.rows)
        return self._is_full

    @torch.no_grad()
    def put(self, rows: Tensor) -> None:
        """Put rows [N, D] in, in their order; of more than `size` the last ones stay."""
        size = len(self.rows)
        kept = rows[-size:]
        first = self.count + len(rows) - len(kept)
        slots = (first + torch.arange(len(kept), device=self.count.device)) % size
        # the loss of this step still needs the old rows for its backward
        self.rows = self.rows.index_copy(0, slots, kept.to(self.rows.dtype))
        self.count = self.count + len(rows)
