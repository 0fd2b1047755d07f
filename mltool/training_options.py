"""Option types of the commands that learn: `train` and `distill`."""

from typing import Annotated, Literal

import typer

from mltool.options import completing

# the model

Arch = Annotated[
    str | None,
    typer.Option("-a", "--arch", metavar="NAME", help="A timm backbone.  [default: resnet50]"),
]
Init = Annotated[
    str | None, typer.Option("--init", metavar="MODEL", help="Start from this checkpoint.")
]
Pooling = Annotated[
    str | None,
    typer.Option(
        "--pooling",
        help="See `list poolings`.  [default: gem]",
        autocompletion=completing("poolings"),
    ),
]
Projection = Annotated[
    str | None,
    typer.Option(
        "--projection", help="linear, conv, linear-bn, layernorm, none.  [default: linear]"
    ),
]

# batches

ClassesPerBatch = Annotated[
    int | None, typer.Option("--classes-per-batch", help="P of P x K.  [default: batch / 4]")
]
ImagesPerClass = Annotated[
    int | None, typer.Option("--images-per-class", help="K of P x K.  [default: batch / P]")
]
SmallClasses = Annotated[
    Literal["resample", "skip", "error"],
    typer.Option(
        "--small-classes",
        help="Classes with fewer images than K: repeat images, leave the class out, or stop.",
    ),
]
Augment = Annotated[
    str | None,
    typer.Option(
        "--augment",
        help="See `list augmentations`: crop, affine, center, whole.  [default: crop; whole with "
        "--keep-aspect]",
        autocompletion=completing("augmentations"),
    ),
]

Mining = Annotated[
    Literal["hard", "random", "none"],
    typer.Option(
        "--mining",
        help="Tuples of anchor, positive, negatives, anew every epoch; in distill by a teacher of "
        "embeddings.",
    ),
]
Pairs = Annotated[
    str | None,
    typer.Option(
        "--pairs",
        metavar="FILE.csv",
        help="Names anchor,positive that show the same thing, for --mining.  [default: the list's "
        "own, else any two of a class]",
    ),
]
Pool = Annotated[
    int | None,
    typer.Option(
        "--pool",
        help="Images of an epoch that negatives are mined from.  [default: 20000]",
    ),
]
Queries = Annotated[
    int | None, typer.Option("--queries", help="Tuples of an epoch.  [default: 2000]")
]
Negatives = Annotated[int | None, typer.Option("--negatives", help="Of a tuple.  [default: 5]")]

# optimisation

Epochs = Annotated[int, typer.Option("--epochs", help="Passes; 0 writes the untrained model.")]
Lr = Annotated[float, typer.Option("--lr", help="Rate of the new layers.")]
LrBackbone = Annotated[
    float | None,
    typer.Option("--lr-backbone", help="[default: --lr; a tenth of it when pretrained]"),
]
LrProxies = Annotated[float | None, typer.Option("--lr-proxies", help="[default: ten times --lr]")]
WeightDecay = Annotated[
    float, typer.Option("--weight-decay", help="Of matrices; never of gains and proxies.")
]
Optimizer = Annotated[
    Literal["adamw", "adam", "sgd", "rmsprop"], typer.Option("--optimizer", help="How to step.")
]
Momentum = Annotated[float, typer.Option("--momentum", help="Of sgd and rmsprop.")]
Schedule = Annotated[
    Literal["cosine", "constant", "step"],
    typer.Option("--schedule", help="How the rates fall over the run."),
]
Warmup = Annotated[float, typer.Option("--warmup", help="Epochs (or part of one) of rising rates.")]
FreezeBn = Annotated[
    bool,
    typer.Option("--freeze-bn/--no-freeze-bn", help="Keep the statistics of batch normalisation."),
]
Clip = Annotated[float | None, typer.Option("--clip", help="Bound on the norm of the gradient.")]
Ema = Annotated[float | None, typer.Option("--ema", help="Keep averaged weights, such as 0.999.")]

# validation

Val = Annotated[
    list[str] | None,
    typer.Option("--val", metavar="DATA", help="Keep the weights that are best on this list."),
]
Select = Annotated[str, typer.Option("--select", help="The metric that decides what is best.")]
ValEvery = Annotated[int, typer.Option("--val-every", help="Epochs between validations.")]
Patience = Annotated[
    int | None, typer.Option("--patience", help="Stop after N epochs without a better one.")
]

# the run

Deterministic = Annotated[
    bool,
    typer.Option(
        "--deterministic/--no-deterministic", help="The same bytes every time on CUDA too."
    ),
]
Log = Annotated[
    str | None, typer.Option("--log", metavar="FILE.jsonl", help="One JSON object per figure.")
]
SaveEvery = Annotated[
    float, typer.Option("--save-every", help="Seconds between saves of the running state.")
]
AllowNonidentical = Annotated[
    bool,
    typer.Option(
        "--allow-nonidentical",
        help="Resume although batch, threads or device differ; the bytes may differ then.",
    ),
]
