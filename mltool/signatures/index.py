"""`mltool index`: an approximate index of embeddings."""

from typing import Annotated

import typer

from mltool.options import Output, Seed, Threads


def index(
    embeddings: Annotated[
        list[str],
        typer.Argument(
            metavar="EMB...",
            help="Embeddings: .h5 files, folders of shards or quoted globs, in this order.",
            show_default=False,
        ),
    ],
    output: Output,
    *,
    type: Annotated[  # noqa: A002 - the option is called so
        str,
        typer.Option(
            "--type",
            help="auto, flat, ivf[:lists=N], hnsw[:links=N], ivfpq[:lists=N,bytes=N] or a faiss "
            "factory text.",
        ),
    ] = "auto",
    seed: Seed = 0,
    threads: Threads = None,
) -> None:
    """Index vectors for approximate search; its recall is measured and stored.

    Exact search (`mltool search` in embeddings) needs no index.
    """
    from mltool.commands.index import IndexRequest, run_index

    run_index(IndexRequest(embeddings, output, type, seed))
