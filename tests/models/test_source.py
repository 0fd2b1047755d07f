"""What MODEL may be: a checkpoint, a backbone by name, or pixels."""

import os
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file

from mltool.errors import InputError, UsageError
from mltool.files.history import record
from mltool.models import checkpoint
from mltool.models.source import Source, open_model


def opened(text: str, **changes: object) -> Source:
    settings = {"weights": None, "pooling": None, "image_size": 32, "resize": None, "seed": 0}
    return open_model(text, **settings | changes)


@pytest.fixture
def saved(tiny, tmp_path: Path) -> str:
    path = str(tmp_path / "model.safetensors")
    step = record("train", inputs=[], settings={}, counts={})
    checkpoint.write(path, tiny(), history=(step,))
    return path


def test_a_checkpoint(saved: str, batch) -> None:
    source = opened(saved, image_size=None)
    found = checkpoint.read(saved)
    assert torch.equal(source.model(batch), found.build_model()(batch))
    assert not source.model.training
    assert source.space == found.digest
    assert source.inputs == (("model", saved, found.digest),)
    assert source.history == found.history
    assert source.settings == {}


def test_a_checkpoint_at_another_size(saved: str) -> None:
    source = opened(saved, image_size=64)
    assert (source.model.spec.crop, source.model.spec.resize) == (64, 72)
    assert source.settings == {"image_size": 64, "resize": 72}
    assert source.space == checkpoint.read(saved).digest


def test_a_checkpoint_has_its_own_weights_and_pooling(saved: str) -> None:
    for changes in ({"weights": "timm"}, {"pooling": "max"}):
        with pytest.raises(UsageError, match="a checkpoint has its own"):
            opened(saved, **changes)


def test_missing_files_are_input_errors(tmp_path: Path) -> None:
    for text in ("none.safetensors", str(tmp_path / "none"), str(tmp_path)):
        with pytest.raises(InputError, match=r"none|pytest"):
            opened(text)


def test_a_backbone_by_name_is_random_and_says_so(caplog, batch) -> None:
    source = opened("test_resnet")
    assert "random weights (seed 0)" in caplog.text
    assert source.model.spec.dim == 96
    assert source.model.spec.pooling == "avg"
    assert source.inputs == (("model", "test_resnet", source.space),)
    assert source.settings["seed"] == 0
    assert source.space == opened("test_resnet").space
    assert source.space != opened("test_resnet", seed=1).space
    assert source.space != opened("test_resnet", pooling="max").space


def test_a_backbone_with_weights(tmp_path: Path, batch) -> None:
    torch.manual_seed(9)
    given = timm.create_model("test_resnet", num_classes=0)
    path = str(tmp_path / "w.safetensors")
    save_file(given.state_dict(), path)
    source = opened("test_resnet", weights=path)
    torch.testing.assert_close(source.model.backbone.conv1[0].weight, given.conv1[0].weight)
    assert [item[:2] for item in source.inputs] == [("model", "test_resnet"), ("--weights", path)]
    assert "weights" not in source.settings  # it is an input, not a setting
    assert opened("timm:test_resnet", weights=path).space == source.space


def test_pixels(batch, caplog) -> None:
    source = opened("pixels", image_size=None)
    assert (source.model.spec.crop, source.model.spec.dim) == (32, 3072)
    assert source.model(batch).shape == (4, 3072)
    assert not caplog.text


def test_a_name_near_a_name(caplog) -> None:
    with pytest.raises(UsageError, match="did you mean test_resnet"):
        opened("test_resnt")


def test_weights_of_timm_are_asked_for(monkeypatch) -> None:
    asked = []

    def offline(name: str, **given: object) -> torch.nn.Module:
        if given.get("pretrained"):
            asked.append(name)
            raise OSError("offline")
        return real(name, **given)

    real = timm.create_model
    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match="cannot be fetched"):
        opened("timm:test_resnet")
    assert asked == ["test_resnet"]
    assert "test_resnet" not in os.environ
