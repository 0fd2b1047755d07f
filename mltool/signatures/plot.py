"""`mltool plot`: pictures of embeddings."""

from typing import Annotated, Literal

import typer

from mltool.options import Output, Seed


def plot(
    kind: Annotated[
        Literal["ranking", "tsne"],
        typer.Argument(
            metavar="ranking|tsne",
            help="ranking: queries and their nearest images, right ones green, wrong ones red. "
            "tsne: all vectors in the plane, coloured by class.",
            show_default=False,
        ),
    ],
    embeddings: Annotated[
        str,
        typer.Argument(
            metavar="EMB",
            help="Embeddings: a file, a folder of shards or a quoted glob.",
            show_default=False,
        ),
    ],
    gallery: Annotated[
        str | None, typer.Argument(metavar="GALLERY", help="Of a ranking, if it is another file.")
    ] = None,
    *,
    output: Output,
    query: Annotated[
        list[str] | None,
        typer.Option("--query", metavar="NAME", help="A query to show; may be repeated."),
    ] = None,
    worst: Annotated[
        int, typer.Option("--worst", help="Without --query: how many of the worst queries.")
    ] = 8,
    k: Annotated[int, typer.Option("-k", help="Hits of each query.")] = 8,
    limit: Annotated[
        int, typer.Option("--limit", help="Rows that t-SNE places, drawn by --seed.")
    ] = 5000,
    seed: Seed = 0,
) -> None:
    """Draw a PNG from embeddings; needs the extra `plot` (matplotlib)."""
    given = dict(locals())
    from mltool.commands.plot import PlotRequest, run

    run(PlotRequest(**given | {"query": query or []}))
