"""Self-supervised training: the task, the backbone that learns, what is reported meanwhile."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError
from mltool.options.batches import BatchSize
from mltool.options.group import UNRECORDED, Rule, check_rules
from mltool.options.images import complete_from
from mltool.options.model import Init, KeepOptimizer, Weights
from mltool.options.run import Preset

option = partial(typer.Option, rich_help_panel="Self-supervision")

_WITHOUT_CHANCE = ("center", "whole")  # augmentations by which all views would be equal
LARGE_VIEWS = 2  # that every task compares


@dataclass(frozen=True, kw_only=True)
class BackboneOptions:
    """The backbone that learns.

    Raises UsageError for --weights beside --init, and for --keep-optimizer without it.
    """

    arch: Annotated[
        str | None,
        typer.Option(
            "-a",
            "--arch",
            metavar="NAME",
            rich_help_panel="Model",
            help="A timm backbone.  [default: resnet50]",
        ),
    ] = None
    weights: Weights = None
    init: Init = None
    keep_optimizer: KeepOptimizer = False

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, kw_only=True)
class PretextOptions:
    """The self-supervised task. Raises UsageError for an option without the one it needs."""

    method: Annotated[
        str,
        option(
            "--method",
            metavar="NAME[:key=value,...]",
            help="See `list pretexts`: swav, moco, byol, simclr.",
            autocompletion=complete_from("pretexts"),
        ),
    ] = "swav"
    preset: Preset = "small"
    batch_size: BatchSize = 128
    probe: Annotated[
        list[str] | None,
        option(
            "--probe",
            metavar="DATA",
            help="Report k-NN accuracy on these labelled images; selects nothing.",
        ),
        UNRECORDED,
    ] = None
    probe_every: Annotated[
        int,
        option("--probe-every", min=1, help="Epochs between probes."),
        Rule(recorded=False, needs="probe"),
    ] = 1
    check_against: Annotated[
        list[str] | None,
        option(
            "--check-against",
            metavar="DATA",
            help="Count images that also stand in this list, such as a test set.",
        ),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    drop_overlap: Annotated[
        bool,
        option("--drop-overlap", help="Leave these images out."),
        Rule(neutral=False, needs="check_against"),
    ] = False

    def __post_init__(self) -> None:
        check_rules(self)


def choose_views(method: Choice, augment: str | None) -> Choice:
    """Return the augmentation that makes the views of a task: the one that is said, or its usual.

    Raises UsageError for one that does not make as many views as the task takes.
    """
    takes = method.declared.views
    usual = "views" if not takes else "views:small=0"
    choice = components.parse("augmentations", augment or usual)
    if choice.name in _WITHOUT_CHANCE:
        raise UsageError(
            f"--augment {choice.name}: the views of an image would be equal; use crop or views"
        )
    settings = dict(choice.settings)
    large, small = (settings.get(name) for name in ("large", "small"))
    if not isinstance(large, int) or not isinstance(small, int):
        return choice  # of one view, which is drawn as often as the task takes views
    if large < LARGE_VIEWS:
        raise UsageError(f"{method.name} compares two large views of an image; say large=2")
    if takes and large + small != takes:
        raise UsageError(
            f"{method.name} takes {takes} views of an image, but --augment {choice.name} makes "
            f"{large + small}; say large={takes},small=0"
        )
    return choice
