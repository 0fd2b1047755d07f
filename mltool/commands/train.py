"""`mltool train`: supervised metric learning."""

from typing import Annotated

import typer

from mltool.options import (
    AllowNonidentical,
    BatchSize,
    CacheOption,
    Classes,
    Data,
    Device,
    DryRun,
    ImageSize,
    Labels,
    Limit,
    Log,
    OnBadImage,
    Optimizer,
    Output,
    PrecisionOption,
    Resize,
    ResumeOption,
    Root,
    SaveEvery,
    Schedule,
    Seed,
    SmallClasses,
    Split,
    Threads,
    Weights,
    Workers,
)


def train(
    data: Data,
    output: Output,
    *,
    arch: Annotated[
        str | None,
        typer.Option("-a", "--arch", metavar="NAME", help="A timm backbone.  [default: resnet50]"),
    ] = None,
    weights: Weights = None,
    init: Annotated[
        str | None, typer.Option("--init", metavar="MODEL", help="Start from this checkpoint.")
    ] = None,
    dim: Annotated[
        int | None, typer.Option("--dim", help="Length of an embedding.  [default: 512]")
    ] = None,
    pooling: Annotated[
        str | None, typer.Option("--pooling", help="See `list poolings`.  [default: gem]")
    ] = None,
    projection: Annotated[
        str | None,
        typer.Option(
            "--projection", help="linear, conv, linear-bn, layernorm, none.  [default: linear]"
        ),
    ] = None,
    loss: Annotated[
        list[str],
        typer.Option(
            "--loss",
            metavar="NAME[:key=value,...]",
            help="See `list losses`; repeated losses add, each times its weight=.",
        ),
    ] = ["multi-similarity"],  # noqa: B006 - typer reads it, nobody changes it
    miner: Annotated[
        str | None, typer.Option("--miner", help="See `list miners`.  [default: none]")
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory", metavar="N", help="Compare with the last N embeddings too.  [default: none]"
        ),
    ] = None,
    memory_weight: Annotated[
        float, typer.Option("--memory-weight", help="What the memory's term counts.")
    ] = 1.0,
    memory_start: Annotated[
        int | None,
        typer.Option(
            "--memory-start", metavar="STEP", help="Remember from here.  [default: 2nd epoch]"
        ),
    ] = None,
    batch_size: BatchSize = 128,
    classes_per_batch: Annotated[
        int | None,
        typer.Option("--classes-per-batch", help="P of P x K.  [default: batch / 4]"),
    ] = None,
    images_per_class: Annotated[
        int | None, typer.Option("--images-per-class", help="K of P x K.  [default: batch / P]")
    ] = None,
    small_classes: SmallClasses = "resample",
    epochs: Annotated[
        int, typer.Option("--epochs", help="Passes; 0 writes the untrained model.")
    ] = 20,
    lr: Annotated[float, typer.Option("--lr", help="Rate of the new layers.")] = 1e-3,
    lr_backbone: Annotated[
        float | None,
        typer.Option("--lr-backbone", help="[default: --lr; a tenth of it when pretrained]"),
    ] = None,
    lr_proxies: Annotated[
        float | None, typer.Option("--lr-proxies", help="[default: ten times --lr]")
    ] = None,
    weight_decay: Annotated[
        float, typer.Option("--weight-decay", help="Of matrices; never of gains and proxies.")
    ] = 1e-4,
    optimizer: Optimizer = "adamw",
    momentum: Annotated[float, typer.Option("--momentum", help="Of sgd and rmsprop.")] = 0.9,
    schedule: Schedule = "cosine",
    warmup: Annotated[
        float, typer.Option("--warmup", help="Epochs (or part of one) of rising rates.")
    ] = 0.0,
    freeze_bn: Annotated[
        bool,
        typer.Option(
            "--freeze-bn/--no-freeze-bn", help="Keep the statistics of batch normalisation."
        ),
    ] = False,
    clip: Annotated[
        float | None, typer.Option("--clip", help="Bound on the norm of the gradient.")
    ] = None,
    ema: Annotated[
        float | None, typer.Option("--ema", help="Keep averaged weights, such as 0.999.")
    ] = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    augment: Annotated[
        str, typer.Option("--augment", help="See `list augmentations`: crop, affine, center.")
    ] = "crop",
    val: Annotated[
        list[str] | None,
        typer.Option("--val", metavar="DATA", help="Keep the weights that are best on this list."),
    ] = None,
    select: Annotated[
        str, typer.Option("--select", help="The metric that decides what is best.")
    ] = "map@r",
    val_every: Annotated[int, typer.Option("--val-every", help="Epochs between validations.")] = 1,
    patience: Annotated[
        int | None, typer.Option("--patience", help="Stop after N epochs without a better one.")
    ] = None,
    split: Split = None,
    classes: Classes = None,
    labels: Labels = None,
    limit: Limit = None,
    root: Root = None,
    on_bad_image: OnBadImage = "error",
    cache: CacheOption = "ram",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    deterministic: Annotated[
        bool,
        typer.Option(
            "--deterministic/--no-deterministic", help="The same bytes every time on CUDA too."
        ),
    ] = False,
    seed: Seed = 0,
    threads: Threads = None,
    workers: Workers = None,
    log: Log = None,
    save_every: SaveEvery = 60.0,
    resume: ResumeOption = False,
    allow_nonidentical: AllowNonidentical = False,
    dry_run: DryRun = False,
) -> None:
    """Train an embedding on labelled images."""
    given = dict(locals())
    from mltool.engine.request import TrainRequest
    from mltool.engine.supervised import run

    run(TrainRequest(**given))
