"""Divide and conquer: learners, each with a cluster of the images and a part of the vector."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.errors import UsageError
from mltool.options.group import NONE_IS_ABSENT, Rule, check_rules
from mltool.options.images import complete_from

option = partial(typer.Option, rich_help_panel="Divide and conquer")


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """Who learns what. Raises UsageError for an option without the one it needs."""

    parts: Annotated[
        str | None,
        option(
            "--parts",
            metavar="slices|masks[:key=value,...]",
            help="Divide the vector into parts; see `list parts`. Without --clusters the whole "
            "vector learns.  [default: none]",
            autocompletion=complete_from("parts"),
        ),
        NONE_IS_ABSENT,
    ] = None
    clusters: Annotated[
        str | None,
        option(
            "--clusters",
            metavar="LIST",
            help="Learn part k from the images of cluster k of this list, joined by name; see "
            "cluster-split.",
        ),
        # an input, of which a record holds the digest
        Rule(recorded=False, needs="parts", because="a learner has one part of the vector"),
    ] = None
    full_from: Annotated[
        int | None,
        option(
            "--full-from",
            metavar="EPOCH",
            min=0,
            help="From here every cluster trains the whole vector.  [default: never]",
        ),
        Rule(neutral=None, needs="clusters"),
    ] = None
    merge_from: Annotated[
        int | None,
        option(
            "--merge-from",
            metavar="EPOCH",
            min=0,
            help="From here all images, those without a cluster too, train the whole vector.  "
            "[default: never]",
        ),
        Rule(neutral=None, needs="clusters"),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
        if None not in (self.full_from, self.merge_from) and self.full_from > self.merge_from:  # type: ignore[operator]
            raise UsageError(
                f"--full-from {self.full_from} comes after --merge-from {self.merge_from}, from "
                "which the whole vector learns anyway; leave it out"
            )
