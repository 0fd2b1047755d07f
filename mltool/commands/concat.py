"""The work of `mltool concat`: vectors of the same images by several models, side by side."""

import logging
import os
from collections.abc import Sequence

import numpy as np

from mltool.files import atomic, embeddings, shards
from mltool.files.concatenated_rows import release
from mltool.files.concatenated_vectors import ConcatenatedVectors
from mltool.files.embeddings import Embeddings
from mltool.files.embeddings_writer import EmbeddingsWriter
from mltool.files.history import History, extend, record
from mltool.files.lists import selection, vector_lists

logger = logging.getLogger(__name__)


def run(texts: list[str], output: str) -> None:
    """Join the vectors of the embeddings that `texts` name, by name, and write them to `output`.

    Columns, root and order of the rows are those of the first; the bounds of parts are dropped, for
    the slices of each model lie elsewhere now. Raises InputError, UsageError,
    ResourceError.
    """
    atomic.check_writable(output)
    paths = [shards.expand(text) for text in texts]
    atomic.refuse_inputs(output, [path for of_text in paths for path in of_text])
    joined = ConcatenatedVectors(texts, [_open(of_text) for of_text in paths])
    labels, label_names = joined.join_labels()
    first = selection.join([vector_lists.read(path) for path in paths[0]])
    with (
        atomic.claim(output),
        EmbeddingsWriter(
            output,
            names=first.names,
            dim=joined.dim,
            labels=labels,
            label_names=label_names,
            columns=vector_lists.columns_for(first, os.path.dirname(os.path.realpath(output))),
            normalized=True,
            space=joined.space,
            teacher_space=joined.teacher_space,
            preprocess=shards.value_of_all([file.preprocess for file in joined.files]),
            root=first.root,
            history=_history(texts, joined),
        ) as writer,
    ):
        zeros = 0
        for block in joined.read_blocks():
            writer.append(block)
            zeros += int(np.count_nonzero(~block.any(axis=1)))
        digest = writer.finish()
    if zeros:
        logger.warning("%d vectors are zero in every file, and stay zero", zeros)
    dims = " + ".join(str(file.vectors.shape[1]) for file in joined.files)
    logger.info(
        "wrote %s: %d vectors of %s = %d dimensions (digest %s)",
        *(output, len(first.names), dims, joined.dim, digest[:12]),
    )


def _open(paths: Sequence[str]) -> Embeddings:
    """Open the files of one model as one, every value checked, the vectors left in the files."""
    files = []
    for path in paths:
        files.append(embeddings.read(path))
        release(files[-1].vectors)
    return shards.join(paths, files)


def _history(texts: Sequence[str], joined: ConcatenatedVectors) -> History:
    inputs = [
        ("embeddings", text, file.digest) for text, file in zip(texts, joined.files, strict=True)
    ]
    counts = {"vectors": len(joined.files[0]), "dim": joined.dim}
    step = record("concat", inputs=inputs, settings={}, counts=counts)
    return extend(*(file.history for file in joined.files), record=step)
