"""One JSON text for one value, so that equal content gives equal bytes and equal digests."""

import hashlib
import json

import numpy as np


def to_json(value: object) -> str:
    """Return JSON with sorted keys and no spaces, numpy scalars as numbers.

    Raises ValueError for NaN.
    """
    return json.dumps(
        value,
        sort_keys=True,
        separators=(",", ":"),
        ensure_ascii=False,
        allow_nan=False,
        default=_plain,
    )


def from_json(text: str | bytes) -> object:
    """Parse JSON of unknown origin. Raises ValueError, also for repeated keys and deep nesting."""
    try:
        return json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except RecursionError:
        raise ValueError("the JSON is nested too deeply") from None


def digest(value: object) -> str:
    """Return the hexadecimal sha256 of the JSON of `value`."""
    return hashlib.sha256(to_json(value).encode()).hexdigest()


def differences(then: object, now: object, name: str = "") -> list[str]:
    """List `name: then -> now` for every value in which two nested JSON values differ."""
    if isinstance(then, dict) and isinstance(now, dict):
        keys = sorted(then.keys() | now.keys())
        members = [
            (f"{name}.{key}" if name else str(key), then.get(key), now.get(key)) for key in keys
        ]
        return [line for key, old, new in members for line in differences(old, new, key)]
    return [] if then == now else [f"{name}: {_short(then)} -> {_short(now)}"]


def _short(value: object) -> str:
    text = to_json(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _plain(value: object) -> object:
    if isinstance(value, np.generic):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("a key of the JSON is repeated")
    return result


def _refuse(constant: str) -> object:
    raise ValueError(f"{constant} is not allowed in the JSON")
