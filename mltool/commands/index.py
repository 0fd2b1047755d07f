"""`mltool index` and `mltool search` as library calls: files in, one file or hits out."""

import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from mltool.errors import InputError, UsageError
from mltool.exact.knn import Resources
from mltool.exact.products import list_precisions
from mltool.files import atomic, embeddings, safe_h5, search_index, shards
from mltool.files import hits as hit_files
from mltool.files.concatenated_rows import release
from mltool.files.embeddings import Embeddings
from mltool.files.history import extend, merge, record
from mltool.files.hits import Hits
from mltool.files.search_index import SearchIndex
from mltool.options import parse_size
from mltool.retrieval.faiss_index import as_embeddings, build
from mltool.retrieval.faiss_index import search_index as search_by_index
from mltool.retrieval.neighbours import search
from mltool.retrieval.query_gallery import check_comparable

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


@dataclass(frozen=True, eq=False)
class Database:
    """What is searched, opened; made by `open_database`."""

    request: SearchRequest
    content: SearchIndex | Embeddings
    resources: Resources

    def refuse_unfit(self, declared: Embeddings) -> None:
        """Raise InputError unless queries that are not embedded yet will fit.

        Of `declared` the number, dimension, metric and models count, but no vector.
        """
        content = self.content
        gallery = as_embeddings(content) if isinstance(content, SearchIndex) else content
        check_comparable(declared, gallery, any_model=self.request.any_model)


def open_database(request: SearchRequest, *, images: bool = False) -> Database:
    """Open what is searched, and check every option that needs no query.

    With `images` the queries are images. Raises UsageError, InputError, ResourceError.
    """
    if request.k < 1:
        raise UsageError(f"-k {request.k}: ask for 1 hit or more")
    if request.min_score is not None and math.isnan(request.min_score):
        raise UsageError("--min-score nan: give a number")
    if request.output is not None:
        atomic.check_writable(request.output)
        texts = [request.db] if images else [request.db, *request.queries]
        given = [path for text in texts for path in shards.expand(text)]
        atomic.refuse_inputs(request.output, given)
    resources = Resources(
        max_memory=parse_size(request.max_memory),
        device="cpu" if request.device == "auto" else request.device,
        threads=request.threads,
    )
    if search_index.is_index(request.db):
        return Database(request, search_index.read(request.db), resources)
    list_precisions(resources.device)
    return Database(request, shards.open_many(shards.expand(request.db)), resources)


def run_search(
    database: Database,
    queries: Embeddings,
    *,
    inputs: Sequence[tuple[str, str, str]] | None = None,
    model: Mapping[str, object] | None = None,
) -> Hits:
    """Search for `queries`, and write the hits if a file was asked for.

    Images were made queries of by `inputs` (option, path, digest) with the settings `model`.
    Raises InputError, ResourceError.
    """
    request, content = database.request, database.content
    with shards.name_broken_file([request.db, *(request.queries if inputs is None else ())]):
        # images were compared with the database before they were embedded
        found = _search(database, queries, any_model=request.any_model or inputs is not None)
    if request.min_score is not None:
        found = found.drop_below(request.min_score)
    if request.output is not None:
        if inputs is None:
            inputs = [("queries", text, queries.digest) for text in request.queries]
        settings = ("k", "min_score", "skip_self", "any_model")
        step = record(
            "search",
            inputs=[("db", request.db, content.digest), *inputs],
            settings={key: getattr(request, key) for key in settings} | dict(model or {}),
            counts={"queries": len(queries), "hits": int(np.count_nonzero(found.names != b""))},
        )
        history = extend(content.history, queries.history, record=step)
        hit_files.write(request.output, found, history)
    return found


def _search(database: Database, queries: Embeddings, *, any_model: bool) -> Hits:
    request, content = database.request, database.content
    keep_self = not request.skip_self
    k = min(request.k, len(content))  # asking for all must not take memory for more
    if isinstance(content, SearchIndex):
        return search_by_index(queries, content, k=k, keep_self=keep_self, any_model=any_model)
    return search(
        queries,
        content,
        k=k,
        keep_self=keep_self,
        any_model=any_model,
        resources=database.resources,
    )
