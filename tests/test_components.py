"""Lookup of components by file name, without importing them."""

import sys

import pytest

from mltool import components
from mltool.errors import UsageError


def test_names_are_the_file_names_with_hyphens() -> None:
    assert {"avg", "avg-max", "gem", "max"} <= set(components.names("poolings"))
    assert not any(name.startswith("_") for name in components.names("losses"))


def test_describe_reads_signature_and_docstrings_without_importing() -> None:
    before = set(sys.modules)
    gem = components.describe("poolings", "gem")
    assert set(sys.modules) == before
    assert [(s.name, s.default) for s in gem.settings] == [("p", 3.0), ("eps", 1e-6)]
    assert gem.is_class
    assert gem.symbol == "GeM"
    assert gem.summary.startswith("Generalized mean")
    assert gem.formula.startswith("v_c =")
    assert gem.paper.startswith("Radenovic")


def test_settings_are_bound_and_converted() -> None:
    gem = components.load("poolings", "gem:p=4")
    assert gem.p.item() == 4.0


def test_context_is_passed_by_name() -> None:
    crop = components.load("augmentations", "crop:scale=0.5", size=40, classes=3)
    assert (crop.size, crop.scale) == (40, 0.5)


def test_missing_context_is_told() -> None:
    with pytest.raises(UsageError, match="crop needs size"):
        components.load("augmentations", "crop")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gemm", "did you mean gem"),
        ("gem:q=1", "no setting 'q'"),
        ("gem:p", "needs a value"),
        ("gem:p=three", "takes a number"),
        ("_pairs", "no component"),
        ("../losses/triplet", "no component"),
        ("", "no component"),
    ],
)
def test_wrong_texts_are_usage_errors(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        components.parse("poolings", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("losses fastap:bins=0", "a whole number, 1 or more"),
        ("losses multi-similarity:alpha=0", "a number above 0"),
        ("losses contrastive:margin=nan", "takes a number"),
        ("losses contrastive:margin=inf", "takes a number"),
        ("transfers crd:negatives=-3", "1 or more"),
        ("transfers crd:temperature=0", "above 0"),
        ("transfers relaxed-contrastive:sigma=-1", "above 0"),
        ("transfers darkrank:length=0", "1 or more or none"),
        ("miners random:positives=-1", "1 or more"),
    ],
)
def test_numbers_have_bounds(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        components.parse(*text.split())


def test_resolved_names_every_setting() -> None:
    assert components.resolved("poolings", "gem:p=2") == "gem:p=2.0,eps=1e-06"
    assert components.resolved("poolings", "avg") == "avg"


def test_every_component_describes_itself() -> None:
    for family in components.families():
        for name in components.names(family):
            component = components.describe(family, name)
            assert component.summary, f"{family} {name} has no docstring"


def test_a_text_is_completed_by_names_then_settings() -> None:
    names = [name for name, _ in components.complete("contr", "losses", "transfers")]
    assert names == ["contrastive"]
    assert dict(components.complete("", "miners")).keys() == set(components.names("miners"))
    for family in components.families():
        for name in components.names(family):
            begun = f"{name}:x=1,"
            settings = [text for text, _ in components.complete(begun, family)]
            known = components.describe(family, name).settings
            assert settings == [f"{begun}{setting.name}=" for setting in known]
    assert components.complete("contrastive:ma", "losses") == [
        ("contrastive:margin=", "a number, 0.5")
    ]
    assert components.complete("none-such:", "losses") == []
