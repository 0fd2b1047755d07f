"""Take parts of vectors: that of one learner, or those of all learners side by side.

Sanakoyeu, Tschernezki, Buechler, Ommer, "Divide and Conquer the Embedding Space for Metric
Learning", CVPR 2019, tests y = [normalise(x_1), ..., normalise(x_K)].
"""

from dataclasses import replace
from typing import cast

import numpy as np

from mltool.errors import InputError, ResourceError, escape
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.concatenated_vectors import ConcatenatedVectors
from mltool.files.embeddings import Embeddings

ALL = "all"


def take_part(
    embeddings: Embeddings, part: str | None, *, source: str, resources: Resources
) -> Embeddings:
    """Return embeddings whose vectors are the part that a text names.

    None is the whole vector as it is. A number is that slice alone, which is not copied. `all` is
    every slice normalised, side by side, and normalised again: a copy, unlike the whole vector if
    its slices differ in length. `source` names the file in messages. Raises InputError where there
    is no such part, ResourceError where the copy does not fit into memory.
    """
    if part is None:
        return embeddings
    if not embeddings.parts:
        raise InputError(
            f"{escape(source)} holds vectors without parts; embed with a model that was trained "
            "with --parts slices"
        )
    if part == ALL:
        return _join_parts(embeddings, source, resources)
    if int(part) >= len(embeddings.parts):
        raise InputError(
            f"{escape(source)} has no part {part}; its parts are 0 to {len(embeddings.parts) - 1}"
        )
    return _slice(embeddings, int(part))


def _slice(embeddings: Embeddings, number: int) -> Embeddings:
    """Return embeddings with the columns of one part, views of the stored ones."""
    columns = slice(*embeddings.parts[number])
    vectors: np.ndarray | ConcatenatedRows = embeddings.vectors
    if isinstance(vectors, ConcatenatedRows):
        cut = [matrix[:, columns] for matrix in vectors.matrices]
        vectors = ConcatenatedRows(cut, vectors.rows)
    else:
        vectors = vectors[:, columns]
    return replace(embeddings, vectors=cast(np.ndarray, vectors), parts=(), normalized=False)


def _join_parts(embeddings: Embeddings, source: str, resources: Resources) -> Embeddings:
    if embeddings.metric != "cosine":
        raise InputError(
            f"{escape(source)} holds vectors compared by {embeddings.metric}; only parts compared "
            "by cosine can be normalised and joined; name one part"
        )
    numbers = range(len(embeddings.parts))
    slices = [_slice(embeddings, number) for number in numbers]
    joined = ConcatenatedVectors([f"part {number}" for number in numbers], slices)
    size = 4 * len(embeddings) * joined.dim
    if size > resources.max_memory:
        raise ResourceError(
            f"the joined parts of {escape(source)} take {size / 2**20:,.0f} MiB; raise "
            "--max-memory, or leave out --part to compare the whole vectors, which are not copied"
        )
    vectors = np.empty((len(embeddings), joined.dim), np.float32)
    start = 0
    for block in joined.read_blocks():
        vectors[start : start + len(block)] = block
        start += len(block)
    return replace(embeddings, vectors=vectors, parts=(), normalized=True)
