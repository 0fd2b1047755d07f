"""Which weights are kept, and when a run has learned enough."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.components import suggest
from mltool.errors import UsageError
from mltool.options.group import UNRECORDED, Rule, check_rules
from mltool.options.lists import parse_block

option = partial(typer.Option, rich_help_panel="Validation")

RANKING_METRICS = ("precision@1", "r_precision", "map@r", "map", "mrr")  # and recall@K


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """Validation during a run.

    Raises UsageError for --patience without --val or --fold, for a fold that is none, and for a
    metric that does not exist.
    """

    val: Annotated[
        list[str] | None,
        option("--val", metavar="DATA", help="Keep the weights that are best on this list."),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    fold: Annotated[
        str | None,
        option(
            "--fold",
            metavar="I/N",
            help="Sort the classes, cut them into N groups, and keep the weights that are best "
            "on group I, counted from 0; the others are learned.",
        ),
        Rule(neutral=None, excludes=("val",), because="takes classes of DATA to validate on"),
    ] = None
    select: Annotated[str, option("--select", help="The metric that decides what is best.")] = (
        "map@r"
    )
    val_every: Annotated[int, option("--val-every", min=1, help="Epochs between validations.")] = 1
    patience: Annotated[
        int | None,
        option("--patience", min=1, help="Stop after N epochs without a better one."),
        Rule(neutral=None, needs=("val", "fold"), because="without it nothing says when to stop"),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
        if self.fold is not None and parse_block("--fold", self.fold)[1] < 2:
            raise UsageError(f"--fold {self.fold} leaves no class to learn; N is 2 or more")
        if self.select not in RANKING_METRICS and not re.fullmatch(
            "recall@[1-9][0-9]*", self.select
        ):
            metrics = [*RANKING_METRICS, "recall@K"]
            raise UsageError(
                f"--select {self.select}: no such metric{suggest(self.select, metrics)} "
                f"(there are: {', '.join(metrics)})"
            )
