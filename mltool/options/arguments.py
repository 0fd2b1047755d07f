"""Positional arguments of single commands."""

from typing import Annotated

import typer

Files = Annotated[list[str], typer.Argument(metavar="FILE...", show_default=False)]
Model = Annotated[
    str,
    typer.Argument(
        metavar="MODEL",
        help="A checkpoint, timm:NAME, NAME (with --weights), or pixels.",
        show_default=False,
    ),
]
TrainedModel = Annotated[
    str, typer.Argument(metavar="MODEL", help="A trained checkpoint.", show_default=False)
]
EmbeddingsByModel = Annotated[
    list[str],
    typer.Argument(
        metavar="EMB...",
        help="Embeddings of the same images by several models: .h5 files, folders of shards "
        "or quoted globs, one a model.",
        show_default=False,
    ),
]
Queries = Annotated[
    str,
    typer.Argument(
        metavar="QUERIES",
        help="Embeddings: an .h5 file, a folder of shards or a quoted glob. Alone: all against "
        "all, or its is_query rows against its is_gallery rows.",
        show_default=False,
    ),
]
Gallery = Annotated[
    str | None,
    typer.Argument(metavar="GALLERY", help="Embeddings to find the queries' classes in."),
]
