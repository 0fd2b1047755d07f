"""A model's description: round trip, and every kind of damage refused."""

import dataclasses
import json
import math

import pytest

from mltool.errors import InputError, UsageError
from mltool.models import spec as specs
from mltool.models.spec import ModelSpec, from_dict

SPEC = ModelSpec("test_resnet", 96, "gem:p=3,eps=1e-06", "linear", 8, resize=36, crop=32)
HEAD = ModelSpec.describe_head(96, projection="linear", dim=8, space="s", metric="dot")


def test_round_trip_through_json() -> None:
    raw = {"normalize": False, "metric": "euclidean", "teacher_space": "t"}
    of_images = [SPEC, dataclasses.replace(SPEC, normalize=False, mean=(0.5, 0.5, 0.25))]
    for spec in (*of_images, HEAD, dataclasses.replace(HEAD, **raw)):
        assert from_dict(json.loads(json.dumps(spec.to_dict())), "x") == spec


def test_defaults_may_be_left_out() -> None:
    values = SPEC.to_dict()
    for key in ("normalize", "metric", "interpolation", "mean", "std"):
        del values[key]
    assert from_dict(values, "x") == SPEC


def test_a_new_neutral_field_changes_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    before = SPEC.to_dict()
    # by now it is on by default, and `none` is what a file of before means
    extra = dataclasses.field(default="on", metadata={specs.NEUTRAL: "none"})
    wider = dataclasses.make_dataclass(
        "Wider", [("extra", str, extra)], bases=(ModelSpec,), frozen=True
    )
    monkeypatch.setattr(specs, "ModelSpec", wider)
    found = from_dict(before, "x")
    assert found.extra == "none"
    assert found.to_dict() == before
    active = dataclasses.replace(found, extra="on").to_dict()
    assert active == before | {"extra": "on"}
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"x: its model has 'extra', .*update mltool"):
        from_dict(active, "x")


def test_fields_that_say_nothing_are_left_out() -> None:
    absent = {"input_space", "input_metric", "keep_aspect", "teacher_space"}
    assert not absent & set(SPEC.to_dict())
    assert "normalize" in SPEC.to_dict()  # a default that does something
    assert dataclasses.replace(SPEC, keep_aspect=True).to_dict()["keep_aspect"] is True
    images = {"pooling", "resize", "crop", "interpolation", "mean", "std"}
    assert not images & set(HEAD.to_dict())
    unknown = dataclasses.replace(HEAD, input_space="")
    assert "input_space" not in unknown.to_dict()
    assert from_dict(unknown.to_dict(), "x") == unknown


WRONG = {
    "nothing": None,
    "a list": [],
    "missing": {k: v for k, v in SPEC.to_dict().items() if k != "dim"},
    "unknown": SPEC.to_dict() | {"heads": 3},
    **{
        f"{key}={value}": SPEC.to_dict() | {key: value}
        for key, value in [
            ("dim", "8"),
            ("dim", 8.0),
            ("dim", True),
            ("dim", 0),
            ("dim", -4),
            ("dim", 2**40),
            ("channels", 10**9),
            ("crop", 0),
            ("crop", 40),  # larger than the shorter side
            ("resize", 2**33),
            ("normalize", 1),
            ("backbone", None),
            ("backbone", 5),
            ("pooling", ["gem"]),
            ("metric", "taxi"),
            ("interpolation", "extra"),
            ("mean", [0.5, 0.5]),
            ("mean", "abc"),
            ("mean", [0.5, None, 0.5]),
            ("mean", [0.5, math.nan, 0.5]),
            ("std", [0.5, 0.0, 0.5]),
            ("std", [0.5, math.inf, 0.5]),
            ("input_space", "s"),
            ("input_metric", "cosine"),
        ]
    },
    **{
        f"head {key}={value}": HEAD.to_dict() | {key: value}
        for key, value in [
            ("crop", 32),
            ("resize", 2**33),
            ("mean", [0.5, 0.5, 0.5]),
            ("pooling", "gem"),
            ("keep_aspect", True),
            ("input_metric", "taxi"),
            ("input_metric", None),
            ("input_space", 3),
            ("channels", 0),
        ]
    },
    "head without channels": {k: v for k, v in HEAD.to_dict().items() if k != "channels"},
    "head without metric": {k: v for k, v in HEAD.to_dict().items() if k != "input_metric"},
}


@pytest.mark.parametrize("values", WRONG.values(), ids=WRONG)
def test_damage_is_an_input_error_naming_the_file(values: object) -> None:
    with pytest.raises(InputError, match=r"model\.safetensors"):
        from_dict(values, "model.safetensors")


def test_a_crop_larger_than_the_image_is_a_usage_error_on_the_command_line() -> None:
    with pytest.raises(UsageError, match="--resize"):
        dataclasses.replace(SPEC, crop=64)


@pytest.mark.parametrize(
    ("crop", "resize", "expected"),
    [
        (None, None, (32, 36)),
        (64, None, (64, 72)),
        (None, 48, (32, 48)),
        (24, 24, (24, 24)),
        (31, None, (31, 35)),
    ],
)
def test_another_size(crop: int | None, resize: int | None, expected: tuple[int, int]) -> None:
    found = SPEC.change_size(crop, resize)
    assert (found.crop, found.resize) == expected
    assert dataclasses.replace(found, crop=32, resize=36) == SPEC


def test_a_head_has_no_other_size() -> None:
    assert HEAD.change_size(None, None) == HEAD
    with pytest.raises(UsageError, match="takes vectors"):
        HEAD.change_size(64, None)
    assert (HEAD.input_shape, SPEC.input_shape) == ((96,), (3, 32, 32))


def test_preprocess_says_what_happens_to_an_image() -> None:
    found = json.loads(SPEC.preprocess)
    assert found["crop"] == 32
    assert found["interpolation"] == "bilinear"
    assert found["mean"] == [0.485, 0.456, 0.406]
    other = dataclasses.replace(SPEC, dim=9, pooling="max")
    assert other.preprocess == SPEC.preprocess
