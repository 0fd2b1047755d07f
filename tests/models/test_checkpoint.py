"""Checkpoints give back the same outputs bit for bit and refuse whatever else they meet."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from mltool.errors import InputError
from mltool.files import safetensors_file
from mltool.files.history import record
from mltool.models import checkpoint
from mltool.models.proxies import Proxies


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "model.safetensors")


@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "test_efficientnet"])
@pytest.mark.parametrize("projection", ["linear", "linear-bn", "conv"])
def test_the_rebuilt_model_gives_the_same_bits(tiny, batch, path, arch, projection) -> None:
    model = tiny(arch, projection=projection, seed=3)
    model(batch)  # running statistics that are not the initial ones
    model = model.to(memory_format=torch.channels_last).eval()
    checkpoint.write(path, model)
    found = checkpoint.read(path)
    again = found.build_model().to(memory_format=torch.channels_last)
    assert not again.training
    assert again.spec == model.spec
    assert torch.equal(again(batch), model(batch))


def test_the_same_model_is_the_same_bytes(tiny, path, tmp_path) -> None:
    digest = checkpoint.write(path, tiny())
    other = str(tmp_path / "other.safetensors")
    assert checkpoint.write(other, tiny().to(memory_format=torch.channels_last)) == digest
    assert Path(other).read_bytes() == Path(path).read_bytes()
    assert checkpoint.read(path).digest == digest
    assert checkpoint.write(other, tiny(seed=1)) != digest


def test_everything_comes_back(tiny, path) -> None:
    model, proxies = tiny(), Proxies(3, 8)
    state = {key: value + 1 for key, value in model.state_dict().items()}
    step = record("train", inputs=[], settings={"lr": 0.1}, counts={"images": 5})
    checkpoint.write(
        path, model, state=state, objective=proxies, classes=("a", "é", "c"), history=(step,)
    )
    found = checkpoint.read(path)
    assert found.classes == ("a", "é", "c")
    assert found.history == (step,)
    assert torch.equal(found.objective["weight"], proxies.weight)
    assert all(torch.equal(found.state[key], value) for key, value in state.items())
    assert found.state.keys() == state.keys()


def test_others_can_load_the_file(tiny, path) -> None:
    model = tiny(seed=5)
    checkpoint.write(path, model)
    state = load_file(path)
    twin = timm.create_model("test_resnet", num_classes=0)
    prefix = "backbone."
    twin.load_state_dict(
        {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
    )
    assert torch.equal(twin.conv1[0].weight, model.backbone.conv1[0].weight)
    with safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        meta = json.loads(file.metadata()["mltool"])
    assert meta["spec"] == model.spec.to_dict()
    assert meta["cost"]["parameters"] == sum(p.numel() for p in model.parameters())


def test_bfloat16_is_stored_as_float32() -> None:
    value = torch.randn(3, 5).bfloat16()
    array = checkpoint.to_arrays({"a": value}, "x.")["x.a"]
    assert array.dtype == np.float32
    assert torch.equal(torch.from_numpy(array).bfloat16(), value)
    arrays = checkpoint.to_arrays(
        {"half": torch.zeros(2, dtype=torch.float16), "count": torch.tensor(3)}
    )
    assert {key: array.dtype.name for key, array in arrays.items()} == {
        "half": "float16",
        "count": "int64",
    }


def test_arrays_are_laid_out_as_they_are_indexed() -> None:
    value = torch.arange(120.0).reshape(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    array = checkpoint.to_arrays({"a": value.requires_grad_()})["a"]
    assert array.flags.c_contiguous
    np.testing.assert_array_equal(array, np.arange(120.0).reshape(2, 3, 4, 5))


def test_a_vit_can_be_asked_for_another_size(tiny, path) -> None:
    model = tiny("test_vit", image_size=64, resize=64)
    checkpoint.write(path, model)
    found = checkpoint.read(path)
    small = found.build_model(found.spec.change_size(32, None))
    assert small.backbone.pos_embed.shape[1] < model.backbone.pos_embed.shape[1]
    assert small(torch.zeros(2, 3, 32, 32)).shape == (2, 8)


def rewrite(path: str, *, drop: str = "", **changes: object) -> None:
    """Change the metadata of a checkpoint, with a right digest."""
    arrays, meta = safetensors_file.read(path)
    arrays.pop(drop, None)
    safetensors_file.write(path, arrays, meta=meta | changes)


@pytest.mark.parametrize(
    "changes",
    [
        {"backbone": "resnat50"},
        {"backbone": "test_resnet:checkpoint_path=/etc/passwd"},
        {"backbone": "test_resnet:output_stride=3"},
        {"backbone": "test_vit"},
        {"backbone": "vit_giant_patch14_224", "crop": 2**17, "resize": 2**17},
        {"pooling": "gm"},
        {"pooling": "gem:q=1"},
        {"pooling": "../losses/contrastive"},
        {"projection": "maybe"},
        {"projection": "none"},
        {"channels": 97},
        {"channels": 2**20, "dim": 2**20},
        {"dim": 9},
        {"dim": 0},
        {"crop": 99},
        {"unknown": 1},
    ],
    ids=str,
)
def test_a_damaged_description_is_an_input_error(tiny, path, changes: dict) -> None:
    model = tiny()
    checkpoint.write(path, model)
    rewrite(path, spec=model.spec.to_dict() | changes)
    with pytest.raises(InputError, match=r"model\.safetensors"):
        checkpoint.read(path).build_model()


def test_tensors_that_do_not_fit_are_named(tiny, path) -> None:
    checkpoint.write(path, tiny())
    rewrite(path, drop="after.bias")
    with pytest.raises(InputError, match=r"model\.safetensors.*after\.bias"):
        checkpoint.read(path).build_model()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format_version": "1"}, "newer|not an mltool"),
        ({"format_version": 2}, "newer"),
        ({"spec": None}, "description"),
        ({"classes": {"a": 1}}, "classes"),
        ({"history": "none"}, "history"),
        ({"history": [{"no": "command"}]}, "history"),
    ],
    ids=str,
)
def test_damaged_metadata_is_an_input_error(tiny, path, changes: dict, message: str) -> None:
    checkpoint.write(path, tiny())
    arrays, meta = safetensors_file.read(path)
    safetensors_file.write(path, arrays, meta=meta | changes)
    with pytest.raises(InputError, match=message):
        checkpoint.read(path)


def test_weights_that_are_not_finite_are_refused(tiny, path) -> None:
    model = tiny()
    with torch.no_grad():
        model.after.bias[2] = torch.nan
    checkpoint.write(path, model)
    with pytest.raises(InputError, match="NaN"):
        checkpoint.read(path)


def test_plain_weights_are_no_checkpoint(path) -> None:
    safetensors_file.write(path, {"a": np.zeros(3)}, meta={})
    with pytest.raises(InputError, match="--weights"):
        checkpoint.read(path)


def test_load_matching_takes_what_fits(tiny, path, caplog) -> None:
    start, model = tiny(seed=1), tiny(dim=16, seed=2)
    before = model.after.weight.detach().clone()
    with caplog.at_level("INFO"):
        checkpoint.load_matching(model, start.state_dict(), path)
    assert torch.equal(model.backbone.conv1[0].weight, start.backbone.conv1[0].weight)
    assert torch.equal(model.after.weight, before)
    assert "2 missing (after.bias, after.weight)" in caplog.text
    with pytest.raises(InputError, match="does not fit"):
        checkpoint.load_matching(tiny("test_vit"), start.state_dict(), path)
