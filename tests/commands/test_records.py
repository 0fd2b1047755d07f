"""What a record holds: a new option whose feature is absent changes nothing of before."""

import dataclasses
import os
import signal
from pathlib import Path
from typing import Annotated

import pytest

from mltool import cli, shell
from mltool.commands import info, train
from mltool.engine.objectives.objective import Objective
from mltool.errors import InputError, Interrupted
from mltool.files import history
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.group import Rule
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.run import RunOptions
from mltool.options.validation import ValidationOptions

# an option that a later version has
Smoothing = Annotated[float, Rule(neutral=0.0)]
Wider = dataclasses.make_dataclass(
    "Wider",
    [("smoothing", Smoothing, dataclasses.field(default=0.0))],
    bases=(OptimisationOptions,),
    frozen=True,
    kw_only=True,
)
SHORT = {"epochs": 2, "optimizer": "sgd", "lr": 0.01}


GROUPS = {
    "model": ModelOptions(arch="test_resnet", dim=8),
    "objective": ObjectiveOptions(),
    "images": ImageOptions(image_size=16, resize=16),
    "lists": ListOptions(limit=120),
    "batches": BatchOptions(batch_size=20),
    "tuples": TupleOptions(),
    "validation": ValidationOptions(),
    "execution": RunOptions(device="cpu", threads=1, workers=0, resume=True),
}


def learn(output: Path, optimisation: OptimisationOptions, **groups: object) -> bytes:
    train.run(["digits:train"], str(output), optimisation=optimisation, **GROUPS | groups)
    return output.read_bytes()


@pytest.mark.parametrize("name", GROUPS)
def test_a_new_option_of_any_group_is_recorded(tmp_path: Path, name: str) -> None:
    group = GROUPS[name]
    wider = dataclasses.make_dataclass(
        "Wider",
        [("smoothing", Smoothing, dataclasses.field(default=0.0))],
        bases=(type(group),),
        frozen=True,
        kw_only=True,
    )
    for smoothing, expected in ((0.1, {"smoothing": 0.1}), (0.0, {})):
        values = vars(group) | {"smoothing": smoothing}
        path = tmp_path / f"{smoothing}"
        learn(path, OptimisationOptions(epochs=0), **{name: wider(**values)})
        settings = history.read(path)[-1]["settings"]
        assert {k: v for k, v in settings.items() if k == "smoothing"} == expected


def test_a_new_option_changes_no_file_and_orphans_no_partial(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = learn(tmp_path / "whole", OptimisationOptions(**SHORT))
    assert learn(tmp_path / "wider", Wider(**SHORT)) == whole
    forward, calls = Objective.forward, []

    def interrupted(self, *given):
        calls.append(1)
        if len(calls) == 3:
            os.kill(os.getpid(), signal.SIGUSR1)
        return forward(self, *given)

    monkeypatch.setattr(Objective, "forward", interrupted)
    with pytest.raises(Interrupted):
        learn(tmp_path / "broken", OptimisationOptions(**SHORT))
    with pytest.raises(InputError, match="smoothing"):
        learn(tmp_path / "broken", Wider(**SHORT, smoothing=0.1))
    assert learn(tmp_path / "broken", Wider(**SHORT)) == whole


def test_what_does_something_is_recorded_though_it_is_the_default(tmp_path: Path) -> None:
    learn(tmp_path / "m", OptimisationOptions(epochs=0))
    settings = history.read(tmp_path / "m")[-1]["settings"]
    absent = {"clip", "ema", "miner", "mixup", "memory", "mining", "keep_aspect", "weights"}
    assert not absent & settings.keys()
    assert settings["freeze_bn"] is False
    assert settings["loss"] == ["multi-similarity:alpha=2.0,beta=50.0,base=0.5"]
    assert (settings["classes_per_batch"], settings["images_per_class"]) == (5, 4)


def test_the_shell_line_of_a_record_says_what_is_no_longer_default(
    tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    learn(tmp_path / "m", OptimisationOptions(epochs=0))
    later = dataclasses.make_dataclass(
        "Later",
        [("smoothing", Smoothing, dataclasses.field(default=0.1))],
        bases=(OptimisationOptions,),
        frozen=True,
        kw_only=True,
    )
    info.run([str(tmp_path / "m")], history=True, groups=shell.groups_of(cli.app))
    assert "smoothing" not in capsys.readouterr().out
    info.run([str(tmp_path / "m")], history=True, groups={"train": (later,)})
    assert "--smoothing 0.0" in capsys.readouterr().out
