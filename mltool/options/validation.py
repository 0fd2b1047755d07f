"""Which weights are kept, and when a run has learned enough."""

import re
from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.components import suggest
from mltool.errors import UsageError
from mltool.options.group import UNRECORDED, Rule, check_rules

option = partial(typer.Option, rich_help_panel="Validation")

RANKING_METRICS = ("precision@1", "r_precision", "map@r", "map", "mrr")  # and recall@K


@dataclass(frozen=True, kw_only=True)
class ValidationOptions:
    """Validation during a run.

    Raises UsageError for --patience without --val, and for a metric that does not exist.
    """

    val: Annotated[
        list[str] | None,
        option("--val", metavar="DATA", help="Keep the weights that are best on this list."),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    select: Annotated[str, option("--select", help="The metric that decides what is best.")] = (
        "map@r"
    )
    val_every: Annotated[int, option("--val-every", min=1, help="Epochs between validations.")] = 1
    patience: Annotated[
        int | None,
        option("--patience", min=1, help="Stop after N epochs without a better one."),
        Rule(neutral=None, needs="val", because="without it nothing says when to stop"),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
        if self.select not in RANKING_METRICS and not re.fullmatch(
            "recall@[1-9][0-9]*", self.select
        ):
            metrics = [*RANKING_METRICS, "recall@K"]
            raise UsageError(
                f"--select {self.select}: no such metric{suggest(self.select, metrics)} "
                f"(there are: {', '.join(metrics)})"
            )
