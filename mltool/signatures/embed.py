"""`mltool embed`: images to vectors."""

from typing import Annotated, Literal

import typer

from mltool.options import (
    BatchSize,
    Classes,
    Data,
    Device,
    DryRun,
    ImageSize,
    KeepAspect,
    Labels,
    Limit,
    OnBadImage,
    Output,
    PrecisionOption,
    Resize,
    ResumeOption,
    Root,
    Seed,
    Split,
    Threads,
    Weights,
    Workers,
    completing,
)


def embed(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A checkpoint, timm:NAME, NAME (with --weights), or pixels.",
            show_default=False,
        ),
    ],
    data: Data,
    output: Output,
    *,
    weights: Weights = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="Of a bare backbone.  [default: avg]")
    ] = None,
    penultimate: Annotated[
        bool,
        typer.Option(
            "--penultimate/--no-penultimate", help="The pooled features before the projection."
        ),
    ] = False,
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option("--dtype", help="Of the stored vectors.")
    ] = "float32",
    shard: Annotated[
        str, typer.Option("--shard", metavar="I/N", help="Only block I of N, counted from 0.")
    ] = "0/1",
    views: Annotated[
        int,
        typer.Option(
            "--views", metavar="V", help="Vectors of V augmented views each, for distill --teacher."
        ),
    ] = 1,
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            help="Of several views.  See `list augmentations`.",
            autocompletion=completing("augmentations"),
        ),
    ] = "crop",
    image_size: ImageSize = None,
    resize: Resize = None,
    keep_aspect: KeepAspect = False,
    split: Split = None,
    classes: Classes = None,
    labels: Labels = None,
    limit: Limit = None,
    root: Root = None,
    on_bad_image: OnBadImage = "error",
    batch_size: BatchSize = 64,
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
    workers: Workers = None,
    resume: ResumeOption = False,
    dry_run: DryRun = False,
) -> None:
    """Embed images with a model; one file of vectors, names and labels."""
    given = dict(locals())
    from mltool.commands.embed import EmbedRequest, run

    run(EmbedRequest(**given))
