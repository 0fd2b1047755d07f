"""`mltool search`: the nearest images of queries."""

import sys
from dataclasses import fields
from typing import Annotated

import typer

from mltool.options import (
    BatchSize,
    Device,
    ImageSize,
    KeepAspect,
    MaxMemory,
    PrecisionOption,
    Resize,
    Root,
    Seed,
    Threads,
    Tsv,
    Weights,
    Workers,
)


def search(
    db: Annotated[
        str,
        typer.Argument(
            metavar="DB",
            help="An index, or embeddings (searched exactly): a file, a folder of shards or a "
            "quoted glob.",
            show_default=False,
        ),
    ],
    queries: Annotated[
        list[str],
        typer.Argument(
            metavar="QUERIES...",
            help="Embeddings like DB; with --model images: files, folders, lists or -.",
            show_default=False,
        ),
    ],
    *,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="The model that made DB; QUERIES are images then."
        ),
    ] = None,
    k: Annotated[int, typer.Option("-k", help="Hits of each query.")] = 10,
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="HDF5, or .tsv or .run (TREC) by its ending."
        ),
    ] = None,
    min_score: Annotated[
        float | None,
        typer.Option("--min-score", help="Leave out hits below: cosine, dot, minus the distance."),
    ] = None,
    skip_self: Annotated[
        bool, typer.Option("--skip-self", help="Leave out the hit with the query's own name.")
    ] = False,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Compare vectors of different models.")
    ] = False,
    tsv: Tsv = False,
    max_memory: MaxMemory = "4G",
    weights: Weights = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="Of a bare backbone.  [default: avg]")
    ] = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    keep_aspect: KeepAspect = False,
    root: Root = None,
    batch_size: BatchSize = 64,
    precision: PrecisionOption = "auto",
    seed: Seed = 0,
    workers: Workers = None,
    device: Device = "auto",
    threads: Threads = None,
) -> None:
    """Print the nearest rows of DB for each query: a table on a terminal, else TSV."""
    given = dict(locals())
    from mltool.commands.index import SearchRequest, open_database, open_queries, run_search
    from mltool.files import hits

    request = SearchRequest(**{field.name: given[field.name] for field in fields(SearchRequest)})
    database = open_database(request, images=model is not None)
    if model is None:
        found = run_search(database, open_queries(queries))
    else:
        from mltool.commands.embed_queries import QueryRequest, open_images

        how = QueryRequest(**{field.name: given[field.name] for field in fields(QueryRequest)})
        asked = open_images(queries, how)
        database.refuse_unfit(asked.declared)
        found = run_search(database, asked.embedded(), inputs=asked.inputs, model=asked.settings)
    if output is None and sys.stdout.isatty() and not tsv:
        print(hits.as_text(found))
    elif output is None or tsv:
        for line in hits.as_tsv(found):
            print(line)
