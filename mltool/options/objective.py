"""What is minimised: losses, and among which pairs."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.options.choices import SHORT_FORMS
from mltool.options.group import NONE_IS_ABSENT, Rule, check_rules, number
from mltool.options.images import complete_from

option = partial(typer.Option, rich_help_panel="Objective")


@dataclass(frozen=True, kw_only=True)
class ObjectiveOptions:
    """The terms of the objective. Raises UsageError for an option without the one it needs."""

    loss: Annotated[
        list[str] | None,
        option(
            "--loss",
            metavar="NAME[:key=value,...]",
            help="See `list losses`; in distill also contrastive+, regression and `list "
            "transfers`; repeated losses add, each times its weight=.  [default: "
            "multi-similarity; in distill contrastive+]",
            autocompletion=complete_from("losses", "transfers", also=tuple(SHORT_FORMS)),
        ),
    ] = None
    miner: Annotated[
        str | None,
        option(
            "--miner",
            help="See `list miners`.  [default: none]",
            autocompletion=complete_from("miners"),
        ),
        NONE_IS_ABSENT,
    ] = None
    mixup: Annotated[
        str | None,
        option(
            "--mixup",
            metavar="LEVEL[:key=value,...]",
            help="Compare with mixed examples too (Metrix); see `list mixups`.  [default: none]",
            autocompletion=complete_from("mixups"),
        ),
        NONE_IS_ABSENT,
    ] = None
    memory: Annotated[
        int | None,
        option(
            "--memory",
            metavar="N",
            min=1,
            help="Compare with the last N embeddings too.  [default: none]",
        ),
        NONE_IS_ABSENT,
    ] = None
    memory_weight: Annotated[
        float | None,
        option(
            "--memory-weight",
            callback=number(least=0),
            help="What the memory's term counts.  [default: 1]",
        ),
        Rule(neutral=None, needs="memory"),
    ] = None
    memory_start: Annotated[
        int | None,
        option(
            "--memory-start",
            metavar="STEP",
            min=0,
            help="Remember from here.  [default: 2nd epoch]",
        ),
        Rule(neutral=None, needs="memory"),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
