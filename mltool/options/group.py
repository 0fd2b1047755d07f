"""What stands beside an option in its group: what a record keeps of it, what it needs or excludes.

A group is a frozen dataclass whose fields are `name: Annotated[TYPE, typer.Option(...)] = default`.
A `Rule` in the same annotation says what typer does not know:

    miner: Annotated[str | None, typer.Option("--miner"), Rule(neutral=None)] = None
"""

import dataclasses
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import typer

from mltool.errors import UsageError

ALWAYS = object()  # no value is neutral: whatever the option says does something


@dataclass(frozen=True)
class Rule:
    """What mltool alone knows about an option.

    `recorded` is False for what changes no result. `neutral` is the value with which the feature of
    the option is absent; a record leaves it out, so that a new option changes no record of before.
    `needs` and `excludes` name other options of the same group; of several needed ones any will do.
    `because` says why: what the option does that leaves no room for those it excludes, or else why
    it needs the other one.
    """

    recorded: bool = True
    neutral: object = ALWAYS
    needs: str | tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    because: str = ""


UNRECORDED = Rule(recorded=False)
NONE_IS_ABSENT = Rule(neutral=None)


def rules_of(group: type) -> dict[str, Rule]:
    """Return the rule of each field of a group, the usual one where none is written."""
    hints = typing.get_type_hints(group, include_extras=True)
    written = {
        name: [mark for mark in getattr(hint, "__metadata__", ()) if isinstance(mark, Rule)]
        for name, hint in hints.items()
    }
    return {name: marks[0] if marks else Rule() for name, marks in written.items()}


def list_recorded(*groups: object) -> dict[str, object]:
    """Return the options of groups that can change a result, but for those that do nothing."""
    return {
        name: getattr(group, name)
        for group in groups
        for name, rule in rules_of(type(group)).items()
        if rule.recorded and not is_neutral(rule.neutral, getattr(group, name))
    }


def list_unwritten(groups: Iterable[type], settings: Mapping[str, object]) -> dict[str, object]:
    """Return the neutral values that a record leaves unsaid, though they are no longer default.

    `settings` are those of the record of a command with these groups.
    """
    unwritten = {}
    for group in groups:
        rules = rules_of(group)
        for field in dataclasses.fields(group):
            neutral = rules[field.name].neutral
            if neutral is not ALWAYS and not is_neutral(neutral, field.default):
                unwritten[field.name] = neutral
    return {name: neutral for name, neutral in unwritten.items() if name not in settings}


def is_neutral(neutral: object, value: object) -> bool:
    """Return whether a value is the declared one; True is not 1."""
    return type(value) is type(neutral) and value == neutral


def check_rules(group: object) -> None:
    """Raise UsageError where an option lacks the one that it needs, or meets one it excludes."""
    for name, rule in rules_of(type(group)).items():
        if not is_changed(group, name):
            continue
        needs = (rule.needs,) if isinstance(rule.needs, str) else rule.needs
        if needs and not any(is_changed(group, other) for other in needs):
            reason = f": {rule.because}" if rule.because and not rule.excludes else ""
            raise UsageError(f"{as_flag(name)} needs {' or '.join(map(as_flag, needs))}{reason}")
        for other in rule.excludes:
            if is_changed(group, other):
                raise UsageError(f"{as_flag(name)} {rule.because}; leave out {as_flag(other)}")


def is_changed(group: object, name: str) -> bool:
    """Return whether an option of a group has another value than its default."""
    default = {field.name: field.default for field in dataclasses.fields(group)}[name]  # type: ignore[arg-type]
    return getattr(group, name) != default


def as_flag(name: str) -> str:
    """Return the name of a field as it is written in the shell."""
    return f"--{name.replace('_', '-')}"


def number(
    *, least: float | None = None, above: float | None = None, below: float | None = None
) -> Callable[[float | None], float | None]:
    """Return a callback of typer that refuses numbers out of range, and what is no number.

    For bounds that typer's `min` and `max` cannot say: they are closed, and let NaN pass.
    """
    words = [f"{least:g} or more"] if least is not None else []
    words += [f"more than {above:g}"] if above is not None else []
    words += [f"less than {below:g}"] if below is not None else []

    def check(value: float | None) -> float | None:
        if value is not None and not (
            (least is None or value >= least)
            and (above is None or value > above)
            and (below is None or value < below)
            and value == value  # NaN differs from itself
        ):
            raise typer.BadParameter(
                f"{value:g} is out of range: it takes {' and '.join(words) or 'a number'}."
            )
        return value

    return check
