"""A second list of images, whose labels are pseudo-labels, and what is learned from them."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.options.group import Rule, check_rules
from mltool.options.images import complete_from

option = partial(typer.Option, rich_help_panel="Unlabelled images")


@dataclass(frozen=True, kw_only=True)
class UnlabeledOptions:
    """Images with pseudo-labels. Raises UsageError for an option without --unlabeled."""

    unlabeled: Annotated[
        list[str] | None,
        option(
            "--unlabeled",
            metavar="LIST",
            help="Learn from these images too, by their pseudo-labels, which are other classes "
            "than those of DATA.",
        ),
        # an input, of which a record holds the digest
        Rule(recorded=False),
    ] = None
    unlabeled_labels: Annotated[
        str | None,
        option(
            "--unlabeled-labels",
            metavar="FILE",
            help="Take the pseudo-labels from this list, by name: so a head learns from the "
            "vectors in --unlabeled by labels that come from other vectors.",
        ),
        # an input, of which a record holds the digest
        Rule(recorded=False, needs="unlabeled", because="it labels those images"),
    ] = None
    basis: Annotated[
        str | None,
        option(
            "--basis",
            metavar="NAME[:key=value,...]",
            help="Choose the pairs of --unlabeled by labelled classes, as SLADE; see `list "
            "bases`.  [default: none, pseudo-labels decide]",
            autocompletion=complete_from("bases"),
        ),
        Rule(neutral=None, needs="unlabeled", because="it chooses pairs of images without labels"),
    ] = None
    unlabeled_loss: Annotated[
        list[str] | None,
        option(
            "--unlabeled-loss",
            metavar="NAME[:key=value,...]",
            help="The loss there; its weight= is what that stream counts.  [default: --loss]",
            autocompletion=complete_from("losses"),
        ),
        Rule(neutral=None, needs="unlabeled"),
    ] = None
    unlabeled_batch_size: Annotated[
        int | None,
        option(
            "--unlabeled-batch-size",
            min=1,
            help="Images of --unlabeled per step and process.  [default: as of DATA]",
        ),
        Rule(neutral=None, needs="unlabeled"),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)
