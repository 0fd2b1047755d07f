"""Which images of which lists."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool.errors import UsageError
from mltool.options.group import NONE_IS_ABSENT, UNRECORDED

option = partial(typer.Option, rich_help_panel="Images")

Data = Annotated[
    list[str],
    typer.Argument(
        metavar="DATA...",
        help="Image lists: a folder, a CSV, an .h5 file, - (paths on standard input), or "
        "BENCHMARK[:ROOT][:SPLIT] such as digits:train.",
        show_default=False,
    ),
]
Split = Annotated[
    str | None,
    option("--split", help="The split of the list to take, or `all`."),
    NONE_IS_ABSENT,
]
Classes = Annotated[
    str | None,
    option("--classes", metavar="A-B", help="Classes to take: A-B in order, or names a,b."),
    NONE_IS_ABSENT,
]
Limit = Annotated[
    int | None, option("--limit", min=1, help="Take only the first N images."), NONE_IS_ABSENT
]
Root = Annotated[
    str | None,
    option("--root", metavar="DIR", help="Folder of relative paths in DATA `-`."),
    UNRECORDED,
]
OnBadImage = Annotated[
    Literal["error", "skip", "ignore"],
    option(
        "--on-bad-image",
        help="Unreadable images: stop, leave out and exit 3, or leave out and exit 0.",
    ),
]


def parse_block(flag: str, text: str) -> tuple[int, int]:
    """Return (I, N) of `I/N`, block I of N. Raises UsageError unless 0 <= I < N."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and int(first) < int(second):
        return int(first), int(second)
    raise UsageError(f"{flag} {text}: write I/N with I from 0 to N - 1, as in 0/4")


@dataclass(frozen=True, kw_only=True)
class ListOptions:
    """Which rows of the image lists are taken, and with which labels."""

    split: Split = None
    classes: Classes = None
    labels: Annotated[
        str | None,
        option("--labels", metavar="FILE", help="Take the labels from this list, by name."),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    limit: Limit = None
    root: Root = None
