"""`mltool index` and `mltool search` as library calls: files in, one file or hits out."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mltool.errors import InputError, UsageError
from mltool.files import atomic, embeddings, safe_h5, search_index, shards
from mltool.files import hits as hit_files
from mltool.files.embeddings import Embeddings
from mltool.files.history import History, extend, merge, record
from mltool.files.hits import Hits
from mltool.files.stacked import release
from mltool.options import parse_size
from mltool.retrieval.index import build
from mltool.retrieval.index import search_index as search_by_index
from mltool.retrieval.knn import Resources
from mltool.retrieval.search import search

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class IndexRequest:
    """The options of `mltool index`, by their names there; see its help."""

    embeddings: list[str]
    output: str
    type: str
    seed: int


@dataclass(frozen=True)
class SearchRequest:
    """The options of `mltool search`, by their names there; see its help."""

    db: str
    queries: list[str]
    k: int
    output: str | None
    min_score: float | None
    skip_self: bool
    any_model: bool
    max_memory: str
    device: str
    threads: int | None


def run_index(request: IndexRequest) -> None:
    """Build the index asked for and write it.

    Raises UsageError, InputError, ResourceError.
    """
    atomic.check_writable(request.output)
    paths = [path for text in request.embeddings for path in shards.expand(text)]
    atomic.refuse_inputs(request.output, paths)
    parts = []
    for path in paths:
        parts.append(embeddings.read(path))
        release(parts[-1].vectors)
    built = build(parts, kind=request.type, seed=request.seed)
    about = built.about
    step = record(
        "index",
        inputs=[("embeddings", path, part.digest) for path, part in zip(paths, parts, strict=True)],
        settings={"type": about.factory, "seed": request.seed},
        counts={"vectors": len(about), "trained_on": about.trained_on},
    )
    history = extend(merge(*(part.history for part in parts)), record=step)
    search_index.write(request.output, replace(about, history=history), built.emit)
    logger.info(
        "%s: %d vectors as %s, recall@10 %.4f against exact search of %d of them",
        request.output,
        len(about),
        about.factory,
        about.recall,
        about.recall_queries,
    )


def open_queries(texts: Sequence[str]) -> Embeddings:
    """The embeddings that the texts name: files, folders of shards, globs. Raises InputError."""
    paths = [path for text in texts for path in shards.expand(text)]
    for path in paths:
        if os.path.isfile(path) and not safe_h5.is_hdf5(path):
            raise InputError(f"{path} holds no embeddings; to search for images say --model MODEL")
    return shards.open_many(paths)


def run_search(
    request: SearchRequest,
    queries: Embeddings,
    *,
    inputs: Sequence[tuple[str, str, str]] | None = None,
    model: Mapping[str, object] | None = None,
) -> Hits:
    """Search for `queries`, and write the hits if a file was asked for.

    Images were made queries of by `inputs` (option, path, digest) with the settings `model`.
    Raises UsageError, InputError, ResourceError.
    """
    if request.k < 1:
        raise UsageError(f"-k {request.k}: ask for 1 hit or more")
    if request.output is not None:
        atomic.check_writable(request.output)
        texts = [request.db, *request.queries] if inputs is None else [request.db]
        given = [path for text in texts for path in shards.expand(text)]
        atomic.refuse_inputs(request.output, given)
    with shards.naming_files([request.db, *(request.queries if inputs is None else ())]):
        found, history, digest = _search(request, queries)
    if request.min_score is not None:
        found = found.at_least(request.min_score)
    if request.output is not None:
        if inputs is None:
            inputs = [("queries", text, queries.digest) for text in request.queries]
        settings = ("k", "min_score", "skip_self", "any_model")
        step = record(
            "search",
            inputs=[("db", request.db, digest), *inputs],
            settings={key: getattr(request, key) for key in settings} | dict(model or {}),
            counts={"queries": len(queries), "hits": int(np.count_nonzero(found.names != b""))},
        )
        hit_files.write(request.output, found, extend(history, queries.history, record=step))
    return found


def _search(request: SearchRequest, queries: Embeddings) -> tuple[Hits, History, str]:
    """(hits, history of the database, its digest)."""
    keep_self, any_model = not request.skip_self, request.any_model
    if search_index.is_index(request.db):
        about = search_index.read(request.db)
        found = search_by_index(
            queries, about, k=min(request.k, len(about)), keep_self=keep_self, any_model=any_model
        )
        return found, about.history, about.digest
    resources = Resources(
        max_memory=parse_size(request.max_memory),
        device="cpu" if request.device == "auto" else request.device,
        threads=request.threads,
    )
    gallery = shards.open_many(shards.expand(request.db))
    found = search(
        queries,
        gallery,
        k=min(request.k, len(gallery)),  # asking for all must not take memory for more
        keep_self=keep_self,
        any_model=any_model,
        resources=resources,
    )
    return found, gallery.history, gallery.digest
