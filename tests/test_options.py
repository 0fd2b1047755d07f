"""Groups of options: sizes, what a record keeps, what an option needs or excludes."""

import dataclasses
import math
import typing
from dataclasses import dataclass
from typing import Annotated

import pytest
import typer

from mltool.cli import (
    dedup,
    distill,
    embed,
    evaluate,
    index,
    pack,
    plot,
    positivity,
    pretrain,
    pseudolabel,
    search,
    train,
)
from mltool.errors import UsageError
from mltool.options.group import (
    Rule,
    check_rules,
    is_neutral,
    list_recorded,
    list_unwritten,
    number,
    rules_of,
)
from mltool.options.images import ImageOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.run import RunOptions, parse_size
from mltool.options.validation import RANKING_METRICS
from mltool.retrieval.metrics import NAMED


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500M", 500 * 2**20),
        ("4G", 2**32),
        ("4g", 2**32),
        ("4GB", 2**32),
        ("4GiB", 2**32),
        (" 2 K ", 2048),
        ("1.5K", 1536),
        ("1T", 2**40),
        ("1e3", 1000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "0", "0.1", "4X", "nan", "inf", "infG", "4 G G", "B"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="500M or 4G"):
        parse_size(text)


RUN_TIME = {"output", "resume", "allow_nonidentical", "dry_run", "save_every", "log", "workers"}
RUN_TIME |= {"threads", "device", "cache", "max_memory", "json", "tsv"}
RUN_TIME |= {"per_query", "per_class", "run"}
RUN_TIME |= {"probe", "probe_every", "preset"}
COMMANDS = (pretrain, train, distill, pseudolabel, embed, index, search, evaluate, positivity)
COMMANDS += (plot, pack, dedup)
GROUPS = [
    group
    for command in COMMANDS
    for group in typing.get_type_hints(command.__wrapped__).values()
    if dataclasses.is_dataclass(group)
]


@pytest.mark.parametrize("group", dict.fromkeys(GROUPS), ids=lambda group: group.__name__)
def test_what_changes_no_result_is_not_recorded(group: type) -> None:
    unrecorded = {name for name, rule in rules_of(group).items() if not rule.recorded}
    inputs = {"init", "labels", "root", "pairs", "teacher", "teacher_weights", "val"}
    inputs |= {"ground_truth", "distractors", "reference", "check_against"}
    inputs |= {"unlabeled", "unlabeled_labels", "clusters"}
    names = {field.name for field in dataclasses.fields(group)}
    assert unrecorded == names & (RUN_TIME | inputs)


def test_a_neutral_value_is_not_recorded() -> None:
    assert "keep_aspect" not in list_recorded(ImageOptions())
    assert list_recorded(ImageOptions(keep_aspect=True))["keep_aspect"] is True
    # a default that does something
    assert list_recorded(OptimisationOptions())["schedule"] == "cosine"
    assert list_recorded(RunOptions()).keys() == {"precision", "deterministic", "seed"}


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group.__name__)
def test_what_is_neutral_can_be_said(group: type) -> None:
    """Else a shell line could not repeat a record of before a default was changed."""
    for field in dataclasses.fields(group):
        neutral = rules_of(group)[field.name].neutral
        assert neutral is not None or field.default is None, field.name


@dataclass(frozen=True)
class Changed:
    """An option that was off by default, one that is, and one that always does something."""

    smoothing: Annotated[float, Rule(neutral=0.0)] = 0.1
    clip: Annotated[float | None, Rule(neutral=None)] = None
    lr: float = 1e-3


def test_a_shell_line_says_what_is_no_longer_default() -> None:
    assert list_unwritten([Changed], {"lr": 1e-3}) == {"smoothing": 0.0}
    assert list_unwritten([Changed], {"smoothing": 0.2}) == {}


@dataclass(frozen=True)
class Group:
    """Options that hang together."""

    one: Annotated[int, Rule(neutral=0)] = 0
    two: Annotated[int | None, Rule(needs="one", because="so it is")] = None
    three: Annotated[bool, Rule(excludes=("one",), because="takes its place")] = False

    def __post_init__(self) -> None:
        check_rules(self)


def test_what_an_option_needs_and_excludes() -> None:
    assert Group(one=1, two=2).two == 2
    assert Group(three=True).three
    with pytest.raises(UsageError, match="--two needs --one: so it is"):
        Group(two=2)
    with pytest.raises(UsageError, match="--three takes its place; leave out --one"):
        Group(one=1, three=True)


def test_zero_and_false_are_not_one_neutral_value() -> None:
    assert is_neutral(0, 0)
    assert not is_neutral(0, False)
    assert not is_neutral(None, 0)


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan])
def test_numbers_out_of_range(value: float) -> None:
    with pytest.raises(typer.BadParameter, match="more than 0"):
        number(above=0)(value)
    assert number(above=0)(1e-300) == 1e-300
    assert number(above=0)(None) is None


def test_rates_of_groups_and_their_short_forms() -> None:
    options = OptimisationOptions(lr_backbone=0.1, lr_group=["pooling=0.5", "transfer=0"])
    assert options.rates == {"backbone": 0.1, "pooling": 0.5, "transfer": 0.0}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("poling=1", "did you mean pooling"),
        ("pooling", "NAME=RATE"),
        ("pooling=-1", "0 or more"),
        ("pooling=nan", "0 or more"),
        ("backbone=1", "a rate already"),
    ],
)
def test_wrong_rates_of_groups(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        OptimisationOptions(lr_backbone=0.1, lr_group=[text])


def test_the_metrics_that_select_are_those_that_are_computed() -> None:
    assert set(RANKING_METRICS) == NAMED.keys()
