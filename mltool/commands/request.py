"""What the commands that learn were asked for, and whether that makes sense at all."""

import dataclasses
from dataclasses import dataclass
from typing import TypeVar

from mltool import components
from mltool.engine.mining import MiningSettings
from mltool.engine.optim import OptimizerName, ScheduleName
from mltool.errors import UsageError
from mltool.options.choices import (
    SHORT_FORMS,
    Positives,
    has_batch_pairs,
    is_transfer,
    parse_loss,
    transfer_needs,
    uses_tuples,
)

Record = TypeVar("Record")


@dataclass(frozen=True)
class RunRequest:
    """The options that all commands that learn have, by their names there; see their help."""

    data: list[str]
    output: str
    arch: str | None
    weights: str | None
    init: str | None
    dim: int | None
    pooling: str | None
    projection: str | None
    loss: list[str]
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
    keep_aspect: bool
    augment: str | None
    val: list[str] | None
    select: str
    val_every: int
    patience: int | None
    split: str | None
    classes: str | None
    labels: str | None
    pairs: str | None
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
        for family, text in (("poolings", self.pooling), ("augmentations", self.augment)):
            if text is not None:
                components.parse(family, text)
        if self.patience is not None and self.val is None:
            raise UsageError("--patience needs --val: without it nothing says when to stop")

    def refuse_batches(self, chooser: str) -> None:
        """Refuse P x K where something else chooses the batches. Raises UsageError."""
        if self.classes_per_batch or self.images_per_class or self.small_classes != "resample":
            raise UsageError(
                f"{chooser} chooses the batches; leave out --classes-per-batch, --images-per-class "
                "and --small-classes"
            )


@dataclass(frozen=True)
class TuplesRequest:
    """The options that say whether tuples are mined, and how."""

    mining: str
    pool: int | None
    queries: int | None
    negatives: int | None

    def check(self, run: RunRequest) -> None:
        """Refuse what would be ignored. Raises UsageError."""
        if self.mining != "none":
            run.refuse_batches("--mining")
            return
        given = {"--pairs": run.pairs} | {f"--{key}": value for key, value in self._given().items()}
        for option, value in given.items():
            if value is not None:
                raise UsageError(
                    f"{option} needs --mining hard or random: other batches have no tuples"
                )

    def settings(self) -> MiningSettings | None:
        """How tuples are mined, None = not at all."""
        return MiningSettings(self.mining, **self._given()) if self.mining != "none" else None

    def recorded(self) -> dict[str, object]:
        """The same for a history."""
        settings = self.settings()
        how = vars(settings) if settings is not None else {"kind": "none"}
        return {"mining" if key == "kind" else key: value for key, value in how.items()}

    def _given(self) -> dict[str, int]:
        numbers = {"pool": self.pool, "queries": self.queries, "negatives": self.negatives}
        return {key: value for key, value in numbers.items() if value is not None}


@dataclass(frozen=True)
class TrainRequest:
    """The options of `mltool train`."""

    run: RunRequest
    tuples: TuplesRequest
    miner: str | None
    mixup: str | None
    memory: int | None
    memory_weight: float | None
    memory_start: int | None

    def check(self) -> None:
        """Refuse what can be refused before any work. Raises UsageError."""
        for loss in self.run.loss:
            components.parse("losses", loss)
        if self.miner is not None:
            components.parse("miners", self.miner)
        if self.mixup is not None:
            components.load("mixups", self.mixup)()
        self.run.check()
        self.tuples.check(self.run)
        for option in ("memory_start", "memory_weight"):
            if self.memory is None and getattr(self, option) is not None:
                raise UsageError(f"--{option.replace('_', '-')} needs --memory N")
        if self.tuples.mining != "none" and (self.miner or self.memory or self.mixup):
            raise UsageError("--mining makes tuples; leave out --miner, --memory and --mixup")


@dataclass(frozen=True)
class DistillRequest:
    """The options of `mltool distill`."""

    run: RunRequest
    tuples: TuplesRequest
    teacher: str
    teacher_weights: str | None
    positives: Positives
    symmetric: bool
    normalize: bool | None
    stages: int | None
    views: int
    neighbors: int | None

    def check(self) -> None:
        """Refuse what can be refused before any work. Raises UsageError."""
        for text in self.run.loss:
            parse_loss(text, with_teacher=True)
        self.run.check()
        self.tuples.check(self.run)
        if self.neighbors is not None and self.tuples.mining != "none":
            raise UsageError("--neighbors and --mining both choose the batches; leave one out")
        if self.views > 1 and self.tuples.mining != "none":
            raise UsageError("--views and --mining both choose the batches; leave one out")
        if self.tuples.mining != "none" and not any(map(self._uses_tuples, self.run.loss)):
            raise UsageError(
                "no --loss has a use for the negatives of --mining; add one with pairs, such as "
                "contrastive+, or leave out --mining"
            )
        if self.neighbors is not None:
            self.run.refuse_batches("--neighbors")
        paired = [t for t in self.run.loss if not is_transfer(t) and has_batch_pairs(t)]
        if self.positives != "class" and all(t.partition(":")[0] in SHORT_FORMS for t in paired):
            raise UsageError(
                f"--positives {self.positives}: this --loss has its own, or none; leave it out, or "
                "use --loss contrastive"
            )
        if self.symmetric and all(map(is_transfer, self.run.loss)):
            raise UsageError("--symmetric says nothing to transfers; leave it out")
        has_new = self.run.projection != "none" and self.run.init is None
        if has_new and not any(map(_trains_embeddings, self.run.loss)):
            raise UsageError(
                "this --loss looks below the embedding, whose projection would stay random; add a "
                "loss on the embeddings, such as --loss proxy-anchor, or say --projection none"
            )

    def _uses_tuples(self, text: str) -> bool:
        return not is_transfer(text) and uses_tuples(text, symmetric=self.symmetric)


def _trains_embeddings(text: str) -> bool:
    """Whether a loss sees the vectors themselves, not only maps or features before them."""
    return not is_transfer(text) or not transfer_needs(text) & {"maps", "penultimate"}


def taken(kind: type[Record], given: dict[str, object]) -> Record:
    """A record of some of the named values, which are taken out of `given`."""
    return kind(**{field.name: given.pop(field.name) for field in dataclasses.fields(kind)})  # type: ignore[arg-type]
