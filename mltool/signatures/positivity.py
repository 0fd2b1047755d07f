"""`mltool positivity`: when a mixed example acts as a positive."""

from typing import Annotated

import typer

from mltool.options import (
    BatchSize,
    Classes,
    Data,
    Device,
    Json,
    Limit,
    Seed,
    Split,
    Threads,
    Workers,
    completing,
)
from mltool.training_options import ClassesPerBatch, ImagesPerClass


def positivity(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A trained checkpoint.", show_default=False)
    ],
    data: Data,
    *,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE.png", help="The curves, drawn.")
    ] = None,
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="See `list losses`.  [default: the model's]",
            autocompletion=completing("losses"),
        ),
    ] = None,
    mixup: Annotated[
        str | None,
        typer.Option(
            "--mixup",
            help="See `list mixups`.  [default: the model's, or else embedding]",
            autocompletion=completing("mixups"),
        ),
    ] = None,
    batches: Annotated[int, typer.Option("--batches", help="How many to measure on.")] = 20,
    batch_size: BatchSize = 128,
    classes_per_batch: ClassesPerBatch = None,
    images_per_class: ImagesPerClass = None,
    split: Split = None,
    classes: Classes = None,
    limit: Limit = None,
    device: Device = "auto",
    seed: Seed = 0,
    threads: Threads = None,
    workers: Workers = None,
    json: Json = False,
) -> None:
    """How often mixed examples act as positives, by lambda."""
    given = dict(locals())
    from mltool.commands.positivity import PositivityRequest, run

    print(run(PositivityRequest(**given)))
