"""Lookup of components by file name, without importing them."""

import hashlib
import os
import sys
from pathlib import Path

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


def test_the_text_of_a_choice_names_every_setting() -> None:
    assert components.parse("poolings", "gem:p=2").text == "gem:p=2.0,eps=1e-06"
    assert components.parse("poolings", "avg").text == "avg"


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


def own_file(folder: Path, name: str = "my_loss", head: str = "SQUARE = True") -> str:
    path = folder / f"{name}.py"
    path.write_text(
        f'''"""Nobody, Nowhere."""

from typing import Annotated

from mltool.settings import Fraction, Neutral

{head}


def {name}(pairs, *, share: Fraction = 0.5, extra: Annotated[float, Neutral(0.0)] = 0.0):
    """Return a part of the similarity."""
    return share * pairs + extra
'''
    )
    return str(path)


def test_a_file_of_ones_own_is_a_component(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    choice = components.parse("losses", f"{path}:share=0.25,weight=2")
    assert (choice["share"], choice.weight, choice.declared.square) == (0.25, 2.0, True)
    assert components.load("losses", choice)(4.0) == 1.0
    digest = hashlib.sha256(Path(path).read_bytes()).hexdigest()
    assert choice.text == f"my_loss.py@{digest[:12]}:share=0.25,weight=2"
    with pytest.raises(UsageError, match="from 0 to 1"):
        components.parse("losses", f"{path}:share=1.5")
    with pytest.raises(UsageError, match="no such file"):
        components.parse("losses", str(tmp_path / "other.py"))


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    before = components.parse("losses", path)
    Path(path).write_text(Path(path).read_text().replace("0.5", "0.75"))
    os.utime(path, ns=(1, 1))
    after = components.parse("losses", path)
    assert (before["share"], after["share"]) == (0.5, 0.75)
    assert before.digest != after.digest


def test_what_does_nothing_is_not_written(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    assert components.parse("losses", path).text.endswith(":share=0.5")
    assert components.parse("losses", f"{path}:extra=1").text.endswith(":share=0.5,extra=1.0")


def test_an_unknown_declaration_is_refused(tmp_path: Path) -> None:
    path = own_file(tmp_path, head="SQURAE = True")
    with pytest.raises(UsageError, match="SQURAE declares nothing; did you mean SQUARE"):
        components.parse("losses", path)
    assert components.parse("losses", own_file(tmp_path, "other", "_TRIES = 3"))


def test_a_model_never_names_a_file_to_run(tmp_path: Path) -> None:
    path = own_file(tmp_path)
    for family in components.PACKAGED_ONLY:
        with pytest.raises(UsageError, match="no component"):
            components.parse(family, path)


def test_a_weight_is_of_terms_alone() -> None:
    assert components.parse("losses", "triplet:weight=0.5").weight == 0.5
    with pytest.raises(UsageError, match="no setting 'weight'"):
        components.parse("miners", "hard:weight=0.5")
    with pytest.raises(UsageError, match="above 0"):
        components.parse("losses", "triplet:weight=-1")
