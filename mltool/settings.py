"""What the annotations of a component's settings mean, for values that come as text.

`Annotated[TYPE, Neutral(VALUE)]` says that with VALUE the setting does nothing. It is then left out
of records, so that a new setting changes no record of before.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

Positive = float  # annotates a number that must be above 0
Fraction = float  # annotates a number from 0 to 1
Natural = int  # annotates a whole number that may be 0


@dataclass(frozen=True)
class Neutral:
    """The value with which a setting does nothing."""

    value: bool | int | float | str | None


def finite(text: str, *, above: float = -math.inf) -> float:
    """Return the number in a text. Raises ValueError unless it is finite and above a bound."""
    number = float(text)
    if not above < number < math.inf:
        raise ValueError(text)
    return number


def fraction(text: str) -> float:
    """Return the number in a text. Raises ValueError unless it lies from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise ValueError(text)
    return number


def count(text: str, *, least: int = 1) -> int:
    """Return the whole number in a text. Raises ValueError below a bound."""
    number = int(text)
    if number < least:
        raise ValueError(text)
    return number


READERS: dict[str, Callable[[str], int | float | str]] = {
    "int": count,
    "float": finite,
    "Positive": partial(finite, above=0),
    "Fraction": fraction,
    "Natural": partial(count, least=0),
    "str": str,
}
WORDS = {
    "int": "a whole number, 1 or more",
    "float": "a number",
    "Positive": "a number above 0",
    "Fraction": "a number from 0 to 1",
    "Natural": "a whole number, 0 or more",
}


def describe_type(annotation: str) -> str:
    """Describe in words what a setting of this annotation takes."""
    kind, _, other = annotation.partition(" | ")
    return WORDS.get(kind, kind) + (" or none" if other else "")
