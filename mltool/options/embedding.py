"""What `mltool embed` stores."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mltool.options.group import Rule, check_rules
from mltool.options.images import complete_from
from mltool.options.lists import OnBadImage
from mltool.options.run import DryRun, Resume


@dataclass(frozen=True, kw_only=True)
class EmbedOptions:
    """Which vectors, and of which images. Raises UsageError for --part beside --penultimate."""

    penultimate: Annotated[
        bool,
        typer.Option(
            "--penultimate/--no-penultimate", help="The pooled features before the projection."
        ),
        Rule(neutral=False),
    ] = False
    part: Annotated[
        int | None,
        typer.Option(
            "--part",
            metavar="K",
            min=0,
            help="The part of one learner instead of the whole vector, counted from 0.",
        ),
        Rule(neutral=None, excludes=("penultimate",), because="is a part of the embedding"),
    ] = None
    dtype: Annotated[
        Literal["float32", "float16"], typer.Option("--dtype", help="Of the stored vectors.")
    ] = "float32"
    shard: Annotated[
        str,
        typer.Option("--shard", metavar="I/N", help="Only block I of N, counted from 0."),
        Rule(neutral="0/1"),
    ] = "0/1"
    views: Annotated[
        int,
        typer.Option(
            "--views",
            metavar="V",
            min=1,
            help="Vectors of V augmented views each, for distill --teacher.",
        ),
        Rule(neutral=1),
    ] = 1
    augment: Annotated[
        str,
        typer.Option(
            "--augment",
            help="Of several views.  See `list augmentations`.",
            autocompletion=complete_from("augmentations"),
        ),
    ] = "crop"
    on_bad_image: OnBadImage = "error"
    resume: Resume = False
    dry_run: DryRun = False

    def __post_init__(self) -> None:
        check_rules(self)
