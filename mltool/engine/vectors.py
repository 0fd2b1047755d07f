"""From cached vectors to batches: the source of a head, with the interface of `Images`."""

from collections.abc import Sequence

import numpy as np
import torch

from mltool.engine.data import Batch, read_columns
from mltool.engine.samplers import Rows
from mltool.errors import InputError
from mltool.files.cached_vectors import CachedVectors
from mltool.files.manifest import WEIGHTS, Manifest


class Vectors:
    """Vectors of a list of `files.lists.vector_lists`; items are lists of (row, draw).

    A vector is the same in every draw and in a test: nothing augments it. Batches carry those of
    `columns` that the list has. Raises InputError where files do not fit each other, and for a
    column that holds no numbers.
    """

    def __init__(self, manifest: Manifest, *, columns: Sequence[str] = WEIGHTS) -> None:
        self.manifest, self.stored = manifest, CachedVectors(manifest)
        self.columns = read_columns(manifest, columns)

    def __getitems__(self, items: Rows) -> Batch | str:
        """Read one batch; why a vector cannot be used travels as text, as with images."""
        rows, draws = np.array(items, np.int64).reshape(-1, 2).T
        try:
            vectors = self.stored.read(rows)
        except InputError as error:
            return str(error)
        return Batch(
            torch.from_numpy(vectors),
            torch.from_numpy(self.manifest.labels[rows]),
            torch.from_numpy(rows),
            torch.from_numpy(draws),
            columns={name: torch.from_numpy(of[rows]) for name, of in self.columns.items()},
        )

    def as_test(self) -> "Vectors":
        """Return itself."""
        return self
