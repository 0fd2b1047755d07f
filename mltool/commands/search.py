"""The work of `mltool search`: an index or vectors, and queries in; hits out."""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.exact.products import list_precisions
from mltool.files import atomic, safe_h5, search_index, shards
from mltool.files import hits as hit_files
from mltool.files.embeddings import Embeddings
from mltool.files.history import extend, record
from mltool.files.hits import Hits
from mltool.files.search_index import SearchIndex
from mltool.options import rules
from mltool.options.group import list_recorded
from mltool.options.model import SourceOptions
from mltool.options.retrieval import SearchOptions
from mltool.options.run import InferenceOptions, parse_size
from mltool.retrieval.faiss_index import as_embeddings
from mltool.retrieval.faiss_index import search_index as search_by_index
from mltool.retrieval.neighbours import search
from mltool.retrieval.query_gallery import check_comparable


def run(
    db: str,
    queries: list[str],
    *,
    model: str | None = None,
    root: str | None = None,
    options: SearchOptions = SearchOptions(),
    source: SourceOptions = SourceOptions(),
    execution: InferenceOptions = InferenceOptions(),
) -> None:
    """Search `db` for the nearest rows of each of `queries`; print the hits or write them.

    Queries are texts that name embeddings; with `model` they name images, which it embeds. `root`,
    `source` and most of `execution` are for images. Raises UsageError, InputError, ResourceError.
    """
    rules.check_search(options, source)
    inputs = [db] if model is not None else [db, *queries]
    database = open_database(db, options, execution, inputs=inputs)
    if model is None:
        hits = database.search(open_queries(queries), names=queries)
    else:
        from mltool.commands.embed_queries import open_images  # imports torch

        images = open_images(queries, model, root=root, source=source, execution=execution)
        database.refuse_unfit(images.declared)
        hits = database.search(images.embed(), inputs=images.inputs, model=images.settings)
    if options.output is None and sys.stdout.isatty() and not options.tsv:
        print(hit_files.as_text(hits))
    elif options.output is None or options.tsv:
        for line in hit_files.as_tsv(hits):
            print(line)


def open_queries(texts: Sequence[str]) -> Embeddings:
    """Open embeddings that texts name: files, folders of shards, globs. Raises InputError."""
    paths = [path for text in texts for path in shards.expand(text)]
    for path in paths:
        if os.path.isfile(path) and not safe_h5.is_hdf5(path):
            raise InputError(f"{path} holds no embeddings; to search for images say --model MODEL")
    return shards.open_many(paths)


@dataclass(frozen=True, eq=False)
class Database:
    """What is searched, opened; made by `open_database`."""

    name: str
    content: SearchIndex | Embeddings
    options: SearchOptions
    resources: Resources

    def refuse_unfit(self, declared: Embeddings) -> None:
        """Raise InputError unless queries that are not embedded yet will fit.

        Of `declared` the number, dimension, metric and models count, but no vector.
        """
        content = self.content
        gallery = as_embeddings(content) if isinstance(content, SearchIndex) else content
        check_comparable(declared, gallery, any_model=self.options.any_model)

    def search(
        self,
        queries: Embeddings,
        *,
        names: Sequence[str] = (),
        inputs: Sequence[tuple[str, str, str]] | None = None,
        model: Mapping[str, object] | None = None,
    ) -> Hits:
        """Search for `queries`, and write the hits if a file was asked for.

        `names` are the texts that name the queries. Queries made of images say their `inputs`
        (option, path, digest) instead, and the settings `model` of what embedded them. Raises
        InputError, ResourceError.
        """
        options, content = self.options, self.content
        with shards.name_broken_file([self.name, *names]):
            # images were compared with the database before they were embedded
            hits = self._search(queries, any_model=options.any_model or inputs is not None)
        if options.min_score is not None:
            hits = hits.drop_below(options.min_score)
        if options.output is not None:
            if inputs is None:
                inputs = [("queries", text, queries.digest) for text in names]
            step = record(
                "search",
                inputs=[("db", self.name, content.digest), *inputs],
                settings=list_recorded(options) | dict(model or {}),
                counts={"queries": len(queries), "hits": int(np.count_nonzero(hits.names != b""))},
            )
            history = extend(content.history, queries.history, record=step)
            hit_files.write(options.output, hits, history)
        return hits

    def _search(self, queries: Embeddings, *, any_model: bool) -> Hits:
        keep_self = not self.options.skip_self
        k = min(self.options.k, len(self.content))  # asking for all takes no memory for more
        if isinstance(self.content, SearchIndex):
            return search_by_index(
                queries, self.content, k=k, keep_self=keep_self, any_model=any_model
            )
        return search(
            queries,
            self.content,
            k=k,
            keep_self=keep_self,
            any_model=any_model,
            resources=self.resources,
        )


def open_database(
    name: str, options: SearchOptions, execution: InferenceOptions, *, inputs: Sequence[str]
) -> Database:
    """Open what is searched, and check every option that needs no query.

    `inputs` are the texts of files that the output must not replace. Raises UsageError, InputError,
    ResourceError.
    """
    if options.output is not None:
        atomic.check_writable(options.output)
        atomic.refuse_inputs(options.output, [p for text in inputs for p in shards.expand(text)])
    resources = Resources(
        max_memory=parse_size(options.max_memory),
        device="cpu" if execution.device == "auto" else execution.device,
        threads=execution.threads,
    )
    if search_index.is_index(name):
        return Database(name, search_index.read(name), options, resources)
    list_precisions(resources.device)
    return Database(name, shards.open_many(shards.expand(name)), options, resources)
