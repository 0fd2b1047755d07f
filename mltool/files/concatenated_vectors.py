"""The vectors of the same images by several models, side by side: one longer vector an image.

Musgrave, Belongie, Lim, "A Metric Learning Reality Check", 2020, tests the models of the folds of
a cross-validation in this way: y = normalise([normalise(x_1), ..., normalise(x_n)]).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mltool.errors import InputError
from mltool.files import canonical_json
from mltool.files.concatenated_rows import release
from mltool.files.embeddings import Embeddings
from mltool.files.labels import join_labels
from mltool.files.names import examples, find

BLOCK_ROWS = 1024  # of every file in memory at a time, in float64
_REMEDY = "embed the same list with every model"


@dataclass(frozen=True, eq=False)
class ConcatenatedVectors:
    """Files of one set of names, in the order of their vectors; `sources` name them in messages.

    Raises InputError where the names differ, and for vectors whose length has a meaning.
    """

    sources: Sequence[str]
    files: Sequence[Embeddings]
    # of each file its row of every name of the first file
    rows: Sequence[np.ndarray] = field(init=False)

    def __post_init__(self) -> None:
        for source, file in zip(self.sources, self.files, strict=True):
            if file.metric != "cosine":
                raise InputError(
                    f"{source} holds vectors compared by {file.metric}; concat normalises vectors, "
                    "which only those compared by cosine allow"
                )
            self._check_names(source, file)
        rows = [find(file.names, self.files[0].names) for file in self.files]
        object.__setattr__(self, "rows", rows)

    @property
    def dim(self) -> int:
        """The length of a joined vector."""
        return sum(file.vectors.shape[1] for file in self.files)

    @property
    def space(self) -> str:
        """The digest of the spaces in order, "" where one is unknown."""
        return _join_spaces([file.space for file in self.files])

    @property
    def teacher_space(self) -> str:
        """The digest of the teachers' spaces in order, "" where a model has no teacher."""
        return _join_spaces([file.teacher_space for file in self.files])

    def join_labels(self) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return labels [N] and label names, of each image the label that any file knows.

        Raises InputError where two files know different ones.
        """
        names = self.files[0].names
        table, label_names = join_labels(self.files, self.sources)
        labels = np.full(len(names), -1)
        for number, (source, rows) in enumerate(zip(self.sources, self.rows, strict=True)):
            of_file = table[number * len(names) :][rows]
            differ = (labels >= 0) & (of_file >= 0) & (labels != of_file)
            if differ.any():
                raise InputError(
                    f"{source}: {int(differ.sum()):,} of {len(names):,} labels are not those of "
                    f"{self.sources[0]} ({examples(names[differ])}); {_REMEDY}"
                )
            labels = np.where(labels < 0, of_file, labels)
        return labels, label_names

    def read_blocks(self) -> Iterator[np.ndarray]:
        """Yield the joined vectors [n, dim] float32 of unit length, in the first file's order.

        A vector that is zero in every file stays zero.
        """
        for start in range(0, len(self.files[0]), BLOCK_ROWS):
            blocks = []
            for file, rows in zip(self.files, self.rows, strict=True):
                blocks.append(_normalise(file.vectors[rows[start : start + BLOCK_ROWS]]))
                release(file.vectors)
            yield _normalise(np.concatenate(blocks, axis=1)).astype(np.float32)

    def _check_names(self, source: str, file: Embeddings) -> None:
        first = self.files[0]
        missing = first.names[find(file.names, first.names) < 0]
        surplus = file.names[find(first.names, file.names) < 0]
        for names, holder, other in (
            (missing, self.sources[0], source),
            (surplus, source, self.sources[0]),
        ):
            if len(names):
                raise InputError(
                    f"{len(names):,} names of {holder} ({examples(names)}) are not in {other}, of "
                    f"{len(first):,} and {len(file):,}; {_REMEDY}"
                )


def _join_spaces(spaces: Sequence[str]) -> str:
    return canonical_json.digest(list(spaces)) if all(spaces) else ""


def _normalise(vectors: np.ndarray) -> np.ndarray:
    """Return rows [n, D] of unit length in float64; zero stays zero."""
    vectors = vectors.astype(np.float64)
    lengths = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))[:, None]
    return np.divide(vectors, lengths, out=np.zeros_like(vectors), where=lengths > 0)
