"""The settings of a mixup: read like any component's, checked like any."""

import pytest

from mltool import components
from mltool.errors import UsageError
from mltool.mixups import KINDS, Mixup


def load(text: str) -> Mixup:
    return components.load("mixups", text)()


def test_the_levels_and_their_defaults() -> None:
    assert components.names("mixups") == ["embedding", "feature", "input"]
    levels = {name: load(name) for name in components.names("mixups")}
    assert {name: mixup.stage for name, mixup in levels.items()} == {
        "embedding": None,
        "feature": "last",
        "input": "input",
    }
    for mixup in levels.values():
        assert (mixup.alpha, mixup.weight, mixup.kinds) == (2.0, 0.4, ("pos-neg",))
    # the more a mixed example costs, the fewer there are
    assert (
        levels["input"].per_anchor < levels["feature"].per_anchor < levels["embedding"].per_anchor
    )


def test_settings() -> None:
    mixup = load("feature:stage=blocks.4,pairs=pos-neg+anchor-neg,per_anchor=none,draw=step")
    assert (mixup.stage, mixup.kinds) == ("blocks.4", ("pos-neg", "anchor-neg"))
    assert (mixup.per_anchor, mixup.draw) == (None, "step")
    assert load("input:pairs=" + "+".join(KINDS)).kinds == KINDS
    assert components.parse("mixups", "input:weight=0.3").text == (
        "input:pairs=pos-neg,negatives=hardest,per_anchor=1,alpha=2.0,draw=pair,weight=0.3"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("embeding", "did you mean embedding"),
        ("input:stage=layer4", "no setting 'stage'"),
        ("input:pairs=pos", "pairs=pos is not valid"),
        ("input:pairs=", "pairs= is not valid"),
        ("input:negatives=easy", "hardest or random"),
        ("input:per_anchor=0", "1 or more"),
        ("input:alpha=0", "above 0"),
        ("input:alpha=nan", "above 0"),
        ("input:weight=-1", "above 0"),
        ("input:weight=inf", "above 0"),
    ],
)
def test_wrong_settings_are_usage_errors(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(text)
