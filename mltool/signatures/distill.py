"""`mltool distill`: what a teacher knows, for a student."""

from typing import Annotated, Literal

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


def distill(
    data: Data,
    output: Output,
    *,
    teacher: Annotated[
        str,
        typer.Option(
            "-t",
            "--teacher",
            metavar="FILE|timm:NAME",
            help="Embeddings of the images (joined by name), a checkpoint, or a timm backbone.",
        ),
    ],
    teacher_weights: Annotated[
        str | None,
        typer.Option(
            "--teacher-weights", metavar="FILE|timm", help="Of a backbone.  [default: timm]"
        ),
    ] = None,
    arch: Arch = None,
    weights: Weights = None,
    init: Init = None,
    dim: Annotated[
        int | None,
        typer.Option(
            "--dim", help="Length of an embedding.  [default: the teacher's; 512 for transfers]"
        ),
    ] = None,
    pooling: Pooling = None,
    projection: Projection = None,
    loss: Annotated[
        list[str],
        typer.Option(
            "--loss",
            metavar="NAME[:key=value,...]",
            help="contrastive+, regression, or see `list losses` and `list transfers`; repeated "
            "losses add, each times its weight=.",
            autocompletion=completing("losses", "transfers", also=("contrastive+", "regression")),
        ),
    ] = ["contrastive+"],  # noqa: B006 - typer reads it, nobody changes it
    positives: Annotated[
        Literal["class", "class+self", "self"],
        typer.Option(
            "--positives",
            help="Which of the teacher's vectors are pulled; contrastive+ and regression say it.",
        ),
    ] = "class",
    symmetric: Annotated[
        bool,
        typer.Option(
            "--symmetric/--no-symmetric",
            help="Compare the student with itself; the teacher serves mining and transfers only.",
        ),
    ] = False,
    normalize: Annotated[
        bool | None,
        typer.Option(
            "--normalize/--no-normalize",
            help="Unit vectors and cosine.  [default: unless all losses are of raw vectors]",
        ),
    ] = None,
    stages: Annotated[
        int | None,
        typer.Option(
            "--stages", metavar="N", help="The last N feature maps are compared.  [default: 4]"
        ),
    ] = None,
    mining: Mining = "none",
    pairs: Pairs = None,
    pool: Pool = None,
    queries: Queries = None,
    negatives: Negatives = None,
    views: Annotated[
        int, typer.Option("--views", help="How often an image stands in a batch.")
    ] = 1,
    neighbors: Annotated[
        int | None,
        typer.Option(
            "--neighbors", metavar="K", help="Batches of images with their K - 1 nearest ones."
        ),
    ] = None,
    batch_size: BatchSize = 128,
    classes_per_batch: ClassesPerBatch = None,
    images_per_class: ImagesPerClass = None,
    small_classes: SmallClasses = "resample",
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
    """Train a student that embeds as its teacher does."""
    given = dict(locals())
    from mltool.commands.distill import run
    from mltool.commands.request import DistillRequest, RunRequest, TuplesRequest, taken

    common, tuples = taken(RunRequest, given), taken(TuplesRequest, given)
    run(DistillRequest(run=common, tuples=tuples, **given))
