"""The work of `mltool index`: files of vectors in, one index out."""

import logging
from dataclasses import replace

from mltool.files import atomic, embeddings, search_index, shards
from mltool.files.concatenated_rows import release
from mltool.files.history import extend, merge, record
from mltool.options.retrieval import IndexOptions
from mltool.retrieval.faiss_index import build

logger = logging.getLogger(__name__)


def run(texts: list[str], output: str, *, options: IndexOptions = IndexOptions()) -> None:
    """Index the embeddings that `texts` name, and write the index to `output`.

    Raises UsageError, InputError, ResourceError.
    """
    atomic.check_writable(output)
    paths = [path for text in texts for path in shards.expand(text)]
    atomic.refuse_inputs(output, paths)
    files = []
    for path in paths:
        files.append(embeddings.read(path))
        release(files[-1].vectors)
    built = build(files, kind=options.type, seed=options.seed)
    about = built.about
    step = record(
        "index",
        inputs=[("embeddings", path, file.digest) for path, file in zip(paths, files, strict=True)],
        settings={"type": about.factory, "seed": options.seed},
        counts={"vectors": len(about), "trained_on": about.trained_on},
    )
    history = extend(merge(*(file.history for file in files)), record=step)
    search_index.write(output, replace(about, history=history), built.emit)
    logger.info(
        "%s: %d vectors as %s, recall@10 %.4f against exact search of %d of them",
        output,
        len(about),
        about.factory,
        about.recall,
        about.recall_queries,
    )
