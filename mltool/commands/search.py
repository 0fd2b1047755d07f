"""`mltool search`: the nearest images of queries."""

import sys
from typing import Annotated

import typer

from mltool.options import MaxMemory, Threads, Tsv


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
        str, typer.Argument(metavar="QUERIES", help="Embeddings.", show_default=False)
    ],
    *,
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
    device: Annotated[str, typer.Option("-d", "--device", help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Threads = None,
) -> None:
    """Print the nearest rows of DB for each query: a table on a terminal, else TSV."""
    given = dict(locals())
    from mltool.files import hits, shards
    from mltool.retrieval.indexing import SearchRequest, run_search

    del given["tsv"]
    found = run_search(SearchRequest(**given), shards.read_many(shards.expand(queries)))
    if output is None and sys.stdout.isatty() and not tsv:
        print(hits.as_text(found))
    elif output is None or tsv:
        for line in hits.as_tsv(found):
            print(line)
