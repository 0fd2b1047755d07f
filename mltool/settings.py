"""What the annotations of a component's settings mean, for values that come as text."""

import math
from collections.abc import Callable
from functools import partial

Positive = float  # annotates a number that must be above 0


def finite(text: str, *, above: float = -math.inf) -> float:
    """The number in a text. Raises ValueError unless it is finite and above a bound."""
    number = float(text)
    if not above < number < math.inf:
        raise ValueError(text)
    return number


def count(text: str) -> int:
    """The whole number in a text. Raises ValueError below 1."""
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


READERS: dict[str, Callable[[str], int | float | str]] = {
    "int": count,
    "float": finite,
    "Positive": partial(finite, above=0),
    "str": str,
}
WORDS = {"int": "a whole number, 1 or more", "float": "a number", "Positive": "a number above 0"}


def wanted(annotation: str) -> str:
    """What a setting of this annotation takes, in words."""
    kind, _, other = annotation.partition(" | ")
    return WORDS.get(kind, kind) + (" or none" if other else "")
