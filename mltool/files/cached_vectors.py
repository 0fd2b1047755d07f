"""The vectors of a list whose locations are rows of embeddings files; only rows in use are read."""

from collections.abc import Callable

import numpy as np

from mltool.errors import InputError
from mltool.files import embeddings, shards
from mltool.files.concatenated_rows import ConcatenatedRows, release
from mltool.files.manifest import Manifest
from mltool.files.names import examples


class CachedVectors:
    """Vectors [N, dim] of a list of `files.lists.vector_lists`, exactly as they are stored.

    `metric` compares them, `space` names the model that made them, "" = unknown, and `preprocess`
    says what that model saw. Raises InputError where files do not fit each other.
    """

    def __init__(self, manifest: Manifest) -> None:
        pairs = [location.partition("\0") for location in manifest.paths]
        self.files = tuple(dict.fromkeys(path for path, _, _ in pairs))
        caches = [embeddings.map_file(path) for path in self.files]
        shards.check_match(self.files, caches)
        self.metric, self.space = caches[0].metric, caches[0].space
        self.preprocess = shards.value_of_all([cache.preprocess for cache in caches])
        self._names = manifest.names
        self._vectors = ConcatenatedRows([cache.vectors for cache in caches])
        start = dict(zip(self.files, self._vectors.starts.tolist(), strict=False))
        self._rows = np.array([start[path] + int(row) for path, _, row in pairs], np.int64)

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self._vectors.shape[1]

    def read(self, rows: np.ndarray) -> np.ndarray:
        """Return the vectors [n, dim] float32 at rows [n]. Raises InputError for NaN."""
        return read_finite(
            self._vectors,
            self._rows[rows],
            describe=lambda broken: (
                f"{self._file_of(rows[broken][0])}: the vector of "
                f"{examples(self._names[rows[broken]])}"
            ),
        )

    def _file_of(self, row: int) -> str:
        number = np.searchsorted(self._vectors.starts, self._rows[row], side="right") - 1
        return self.files[number]


def read_finite(
    vectors: ConcatenatedRows, rows: np.ndarray, *, describe: Callable[[np.ndarray], str]
) -> np.ndarray:
    """Read rows [n] of cached vectors as float32 [n, D], and release the memory that maps them.

    Raises InputError where one is not finite; `describe` names the file and the vectors at
    these positions.
    """
    order = np.argsort(rows, kind="stable")  # the disk is read in one direction
    read = np.empty((len(rows), vectors.shape[1]), np.float32)
    read[order] = vectors[rows[order]]
    release(vectors)
    broken = ~np.isfinite(read).all(axis=1)
    if broken.any():
        raise InputError(f"{describe(np.flatnonzero(broken))} is not finite; embed it again")
    return read
