"""How parameters move: the optimiser, its rates, and for how long."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool.components import suggest
from mltool.errors import UsageError
from mltool.options.group import NONE_IS_ABSENT, Rule, number

option = partial(typer.Option, rich_help_panel="Optimisation")

OptimizerName = Literal["adamw", "adam", "sgd", "rmsprop", "lars"]
ScheduleName = Literal["cosine", "constant", "step"]

# Groups of parameters that may have a rate of their own.
RATE_GROUPS = (
    "backbone",
    "attention",
    "pooling",
    "projection",
    "proxies",
    "transfer",
    "masks",
    "basis",
    "pretext",
)


@dataclass(frozen=True, kw_only=True)
class OptimisationOptions:
    """What decides how parameters move, and for how long.

    Raises UsageError for a wrong --lr-group, and for epochs that the course does not have.
    """

    epochs: Annotated[
        int, option("--epochs", min=0, help="Passes; 0 writes the untrained model.")
    ] = 20
    from_epoch: Annotated[
        int,
        option(
            "--from-epoch",
            min=0,
            help="Carry out the course of --epochs from this one on, counted from 0.",
        ),
        Rule(neutral=0),
    ] = 0
    to_epoch: Annotated[
        int | None,
        option("--to-epoch", min=1, help="Stop before this epoch of the course."),
        NONE_IS_ABSENT,
    ] = None
    save_optimizer: Annotated[
        bool,
        option(
            "--save-optimizer",
            help="Keep the state of the run in the model's file, for --keep-optimizer.",
        ),
        Rule(neutral=False),
    ] = False
    lr: Annotated[
        float | None,
        option(
            "--lr",
            callback=number(above=0),
            help="Rate of the new layers.  [default: 0.3 of lars; 1.5e-3 with --weights or --init, "
            "3e-4 with --arch vectors, else 1e-2]",
        ),
    ] = None
    lr_backbone: Annotated[
        float | None,
        option(
            "--lr-backbone",
            callback=number(least=0),
            help="[default: --lr; a tenth of it when pretrained]",
        ),
    ] = None
    lr_proxies: Annotated[
        float | None,
        option("--lr-proxies", callback=number(least=0), help="[default: ten times --lr]"),
    ] = None
    lr_group: Annotated[
        list[str] | None,
        option(
            "--lr-group",
            metavar="NAME=RATE",
            help=f"Rate of one group of parameters: {', '.join(RATE_GROUPS)}; repeatable.",
        ),
        NONE_IS_ABSENT,
    ] = None
    weight_decay: Annotated[
        float,
        option(
            "--weight-decay",
            callback=number(least=0),
            help="Of matrices; never of gains and proxies.",
        ),
    ] = 1e-4
    optimizer: Annotated[OptimizerName, option("--optimizer", help="How to step.")] = "adamw"
    momentum: Annotated[
        float,
        option("--momentum", callback=number(least=0, below=1), help="Of sgd, rmsprop and lars."),
    ] = 0.9
    schedule: Annotated[
        ScheduleName, option("--schedule", help="How the rates fall over the run.")
    ] = "cosine"
    warmup: Annotated[
        float | None,
        option(
            "--warmup",
            callback=number(least=0),
            help="Epochs (or part of one) of rising rates.  [default: 25 steps from scratch, "
            "at most a third of the run; else 0]",
        ),
    ] = None
    freeze_bn: Annotated[
        bool | None,
        option(
            "--freeze-bn/--no-freeze-bn",
            help="Keep the statistics of batch normalisation.  [default: with --weights or --init]",
        ),
    ] = None
    clip: Annotated[
        float | None,
        option("--clip", callback=number(above=0), help="Bound on the norm of the gradient."),
        NONE_IS_ABSENT,
    ] = None
    ema: Annotated[
        float | None,
        option(
            "--ema",
            callback=number(least=0, below=1),
            help="Keep averaged weights, such as 0.999.",
        ),
        NONE_IS_ABSENT,
    ] = None

    def __post_init__(self) -> None:
        _ = self.rates
        self._check_epochs()

    def _check_epochs(self) -> None:
        """Raise UsageError unless --from-epoch < --to-epoch <= --epochs."""
        if self.to_epoch is not None and self.to_epoch > self.epochs:
            raise UsageError(
                f"--to-epoch {self.to_epoch}: the course has {self.epochs} epochs; raise --epochs"
            )
        end = self.epochs if self.to_epoch is None else self.to_epoch
        if self.from_epoch and self.from_epoch >= end:
            option_name = "--epochs" if self.to_epoch is None else "--to-epoch"
            raise UsageError(
                f"--from-epoch {self.from_epoch}: nothing is left to do before {option_name} {end}"
            )

    @property
    def rates(self) -> dict[str, float]:
        """The rates said for single groups of parameters, by group."""
        short = {"backbone": self.lr_backbone, "proxies": self.lr_proxies}
        rates = {group: rate for group, rate in short.items() if rate is not None}
        for text in self.lr_group or ():
            group, _, number_text = text.partition("=")
            if group not in RATE_GROUPS:
                raise UsageError(
                    f"--lr-group {text}: no group {group!r}{suggest(group, list(RATE_GROUPS))} "
                    f"(there are: {', '.join(RATE_GROUPS)})"
                )
            if group in rates:
                raise UsageError(f"--lr-group {text}: {group} has a rate already")
            rates[group] = _rate(text, number_text)
        return rates


def _rate(option_text: str, text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = -1.0
    if not rate >= 0:
        raise UsageError(f"--lr-group {option_text}: write NAME=RATE, the rate 0 or more")
    return rate
