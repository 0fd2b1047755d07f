"""What `mltool train` was asked for, and whether that makes sense at all."""

from dataclasses import dataclass

from mltool import components
from mltool.engine.optim import OptimizerName, ScheduleName
from mltool.engine.terms import split_weight
from mltool.errors import UsageError


@dataclass(frozen=True)
class TrainRequest:
    """The options of `mltool train`, by their names there; see its help."""

    data: list[str]
    output: str
    arch: str | None
    weights: str | None
    init: str | None
    dim: int | None
    pooling: str | None
    projection: str | None
    loss: list[str]
    miner: str | None
    memory: int | None
    memory_weight: float
    memory_start: int | None
    batch_size: int
    classes_per_batch: int | None
    images_per_class: int | None
    small_classes: str
    epochs: int
    lr: float
    lr_backbone: float | None
    lr_proxies: float | None
    weight_decay: float
    optimizer: OptimizerName
    momentum: float
    schedule: ScheduleName
    warmup: float
    freeze_bn: bool
    clip: float | None
    ema: float | None
    image_size: int | None
    resize: int | None
    augment: str
    val: list[str] | None
    select: str
    val_every: int
    patience: int | None
    split: str | None
    classes: str | None
    labels: str | None
    limit: int | None
    root: str | None
    on_bad_image: str
    cache: str
    precision: str
    device: str
    deterministic: bool
    seed: int
    threads: int | None
    workers: int | None
    log: str | None
    save_every: float
    resume: bool
    allow_nonidentical: bool
    dry_run: bool

    def check(self) -> None:
        """Refuse what can be refused before any work. Raises UsageError."""
        for loss in self.loss:
            components.parse("losses", split_weight(loss)[0])
        for family, text in (
            ("miners", self.miner),
            ("poolings", self.pooling),
            ("augmentations", self.augment),
        ):
            if text is not None:
                components.parse(family, text)
        if self.memory is None and self.memory_start is not None:
            raise UsageError("--memory-start needs --memory N: there is nothing to start")
        if self.patience is not None and self.val is None:
            raise UsageError("--patience needs --val: without it nothing says when to stop")
