"""`mltool train`: supervised metric learning."""

from typing import Annotated

import typer

from mltool.options import (
    BatchSize,
    CacheOption,
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
from mltool.training_options import (
    AllowNonidentical,
    Arch,
    Augment,
    ClassesPerBatch,
    Clip,
    Deterministic,
    Ema,
    Epochs,
    FreezeBn,
    ImagesPerClass,
    Init,
    Log,
    Lr,
    LrBackbone,
    LrProxies,
    Mining,
    Momentum,
    Negatives,
    Optimizer,
    Pairs,
    Patience,
    Pool,
    Pooling,
    Projection,
    Queries,
    SaveEvery,
    Schedule,
    Select,
    SmallClasses,
    Val,
    ValEvery,
    Warmup,
    WeightDecay,
)


def train(
    data: Data,
    output: Output,
    *,
    arch: Arch = None,
    weights: Weights = None,
    init: Init = None,
    dim: Annotated[
        int | None, typer.Option("--dim", help="Length of an embedding.  [default: 512]")
    ] = None,
    pooling: Pooling = None,
    projection: Projection = None,
    loss: Annotated[
        list[str],
        typer.Option(
            "--loss",
            metavar="NAME[:key=value,...]",
            help="See `list losses`; repeated losses add, each times its weight=.",
            autocompletion=completing("losses"),
        ),
    ] = ["multi-similarity"],  # noqa: B006 - typer reads it, nobody changes it
    miner: Annotated[
        str | None,
        typer.Option(
            "--miner",
            help="See `list miners`.  [default: none]",
            autocompletion=completing("miners"),
        ),
    ] = None,
    mixup: Annotated[
        str | None,
        typer.Option(
            "--mixup",
            metavar="LEVEL[:key=value,...]",
            help="Compare with mixed examples too (Metrix); see `list mixups`.  [default: none]",
            autocompletion=completing("mixups"),
        ),
    ] = None,
    memory: Annotated[
        int | None,
        typer.Option(
            "--memory", metavar="N", help="Compare with the last N embeddings too.  [default: none]"
        ),
    ] = None,
    memory_weight: Annotated[
        float | None,
        typer.Option("--memory-weight", help="What the memory's term counts.  [default: 1]"),
    ] = None,
    memory_start: Annotated[
        int | None,
        typer.Option(
            "--memory-start", metavar="STEP", help="Remember from here.  [default: 2nd epoch]"
        ),
    ] = None,
    batch_size: BatchSize = 128,
    classes_per_batch: ClassesPerBatch = None,
    images_per_class: ImagesPerClass = None,
    small_classes: SmallClasses = "resample",
    mining: Mining = "none",
    pairs: Pairs = None,
    pool: Pool = None,
    queries: Queries = None,
    negatives: Negatives = None,
    epochs: Epochs = 20,
    lr: Lr = 1e-3,
    lr_backbone: LrBackbone = None,
    lr_proxies: LrProxies = None,
    weight_decay: WeightDecay = 1e-4,
    optimizer: Optimizer = "adamw",
    momentum: Momentum = 0.9,
    schedule: Schedule = "cosine",
    warmup: Warmup = 0.0,
    freeze_bn: FreezeBn = False,
    clip: Clip = None,
    ema: Ema = None,
    image_size: ImageSize = None,
    resize: Resize = None,
    keep_aspect: KeepAspect = False,
    augment: Augment = None,
    val: Val = None,
    select: Select = "map@r",
    val_every: ValEvery = 1,
    patience: Patience = None,
    split: Split = None,
    classes: Classes = None,
    labels: Labels = None,
    limit: Limit = None,
    root: Root = None,
    on_bad_image: OnBadImage = "error",
    cache: CacheOption = "ram",
    precision: PrecisionOption = "auto",
    device: Device = "auto",
    deterministic: Deterministic = False,
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
    from mltool.commands.request import RunRequest, TrainRequest, TuplesRequest, taken
    from mltool.commands.train import run

    common, tuples = taken(RunRequest, given), taken(TuplesRequest, given)
    run(TrainRequest(run=common, tuples=tuples, **given))
