"""Which images stand in a batch together: P x K, or tuples that are mined."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool.options.group import NONE_IS_ABSENT, Rule, check_rules

option = partial(typer.Option, rich_help_panel="Batches")

BatchSize = Annotated[int, option("-b", "--batch-size", min=1, help="Images per step and process.")]
ClassesPerBatch = Annotated[
    int | None,
    option("--classes-per-batch", min=1, help="P of P x K.  [default: batch / 4]"),
    NONE_IS_ABSENT,
]
ImagesPerClass = Annotated[
    int | None,
    option("--images-per-class", min=1, help="K of P x K.  [default: batch / P]"),
    NONE_IS_ABSENT,
]
MINED = Rule(neutral=None, needs="mining", because="other batches have no tuples")


@dataclass(frozen=True, kw_only=True)
class BatchOptions:
    """Batches of P classes with K images each."""

    batch_size: BatchSize = 128
    classes_per_batch: ClassesPerBatch = None
    images_per_class: ImagesPerClass = None
    small_classes: Annotated[
        Literal["resample", "skip", "error"],
        option(
            "--small-classes",
            help="Classes with fewer images than K: repeat images, leave the class out, or stop.",
        ),
    ] = "resample"


@dataclass(frozen=True, kw_only=True)
class TupleOptions:
    """Batches of tuples. Raises UsageError for an option of tuples where none are mined."""

    mining: Annotated[
        Literal["hard", "random", "none"],
        option(
            "--mining",
            help="Tuples of anchor, positive, negatives, anew every epoch; in distill by a teacher "
            "of embeddings.",
        ),
        Rule(neutral="none"),
    ] = "none"
    pairs: Annotated[
        str | None,
        option(
            "--pairs",
            metavar="FILE.csv",
            help="Names anchor,positive that show the same thing, for --mining.  [default: the "
            "list's own, else any two of a class]",
        ),
        # an input, of which a record holds the digest
        Rule(recorded=False, needs="mining", because="other batches have no tuples"),
    ] = None
    pool: Annotated[
        int | None,
        option(
            "--pool",
            min=1,
            help="Images of an epoch that negatives are mined from.  [default: 20000]",
        ),
        MINED,
    ] = None
    queries: Annotated[
        int | None,
        option("--queries", min=1, help="Tuples of an epoch.  [default: 2000]"),
        MINED,
    ] = None
    negatives: Annotated[
        int | None, option("--negatives", min=1, help="Of a tuple.  [default: 5]"), MINED
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
