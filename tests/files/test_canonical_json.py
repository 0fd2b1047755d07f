"""One JSON text for one value."""

import json

import numpy as np
import pytest

from mltool.files import canonical_json


def test_one_text_for_one_value() -> None:
    value = {"b": [1, 2.5, None, True], "a": {"é": "\n"}}
    assert canonical_json.to_json(value) == '{"a":{"é":"\\n"},"b":[1,2.5,null,true]}'
    assert canonical_json.to_json(dict(reversed(value.items()))) == canonical_json.to_json(value)
    assert canonical_json.from_json(canonical_json.to_json(value)) == value
    assert json.loads(canonical_json.to_json(value)) == value
    scalars = {"i": np.int64(3), "f": np.float32(0.5), "b": np.bool_(True)}
    assert canonical_json.to_json(scalars) == '{"b":true,"f":0.5,"i":3}'


def test_digest() -> None:
    # printf '{"a":1}' | sha256sum
    wanted = "015abd7f5cc57a2dd94b7590f04ad8084273905ee33ec5cebeae62276a97f862"
    assert canonical_json.digest({"a": 1}) == wanted


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_cannot_hold(value: float) -> None:
    with pytest.raises(ValueError):
        canonical_json.to_json(value)
    with pytest.raises(TypeError):
        canonical_json.to_json({1, 2})


@pytest.mark.parametrize(
    "text",
    ["", "{", "NaN", "[-Infinity]", '{"a":1,"a":2}', "[" * 100_000, b"\xff\xfe\xff", "9" * 5000],
)
def test_hostile_json(text: str) -> None:
    with pytest.raises(ValueError):
        canonical_json.from_json(text)


def test_differences() -> None:
    then = {"a": 1, "b": {"c": [1], "d": "same"}, "gone": None, "long": "x" * 100}
    now = {"a": 2, "b": {"c": [2], "d": "same", "e": "é"}}
    assert canonical_json.differences(then, now) == [
        "a: 1 -> 2",
        "b.c: [1] -> [2]",
        'b.e: null -> "é"',
        f'long: "{"x" * 56}... -> null',
    ]
    assert canonical_json.differences(then, then) == []
