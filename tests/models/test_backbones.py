"""Networks of every layout give [B, C, h, w]; weights load with a report, or not at all."""

import logging
import os
import pickle
import random
import zipfile
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.layers import DropPath
from torch import nn

from mltool.errors import InputError, UsageError
from mltool.models import backbones

LAYOUTS = [
    ("test_resnet", 32),
    ("test_efficientnet", 32),
    ("test_byobnet", 32),
    ("test_convnext", 32),
    ("test_mambaout", 32),  # keeps channels last inside
    ("test_vit", 32),  # a class token
    ("test_vit3", 32),  # pooled by attention
    ("test_vit4", 32),  # register tokens
    ("swin_tiny_patch4_window7_224:embed_dim=24", 64),  # gives channels last
    ("mixer_s32_224", 64),  # tokens without a class token
    ("test_maxvit", 64),
    ("deit_tiny_distilled_patch16_224:depth=1", 32),  # two tokens before the patches
    ("pixels", 16),
]


@pytest.mark.parametrize(("text", "size"), LAYOUTS, ids=lambda v: str(v).partition(":")[0])
def test_every_layout_gives_maps(text: str, size: int) -> None:
    torch.manual_seed(0)
    net = backbones.create(text, image_size=size).eval()
    images = torch.rand(2, 3, size, size).requires_grad_()
    maps = backbones.feature_maps(net, images)
    assert maps.ndim == 4
    assert maps.shape[:2] == (2, backbones.channels(net))
    expected = net.forward_features(images)
    if expected.ndim == 3:  # the patches, and nothing else
        patches = maps.shape[2] * maps.shape[3]
        assert patches == int(patches**0.5) ** 2
        assert torch.equal(maps.flatten(2).transpose(1, 2), expected[:, -patches:])
    elif expected.shape != maps.shape:
        assert torch.equal(maps, expected.permute(0, 3, 1, 2))


def test_maps_are_those_that_timm_pools() -> None:
    torch.manual_seed(0)
    net = backbones.create("test_resnet", image_size=32).eval()
    images = torch.rand(2, 3, 32, 32)
    pooled = backbones.feature_maps(net, images).mean((2, 3))
    torch.testing.assert_close(pooled, net(images))  # without a head timm gives average pooling


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("test_resnat", "did you mean test_resnet"),
        ("test_resnet:no_such=1", "no_such"),
        ("test_resnet:output_stride=7", "cannot build"),
        ("test_resnet:lonely", "needs a value"),
        ("test_vit:patch_size=0", "cannot build"),
        ("test_resnet:checkpoint_path=/etc/passwd", "checkpoint_path is not"),
        ("test_resnet:pretrained=True", "pretrained is not"),
        ("test_resnet:cache_dir=/tmp", "cache_dir is not"),
        ("hf-hub:stranger/model", "no backbone"),
        ("", "no backbone"),
    ],
)
def test_what_timm_does_not_know_is_a_usage_error(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message) as caught:
        backbones.create(text, image_size=32)
    assert "\n" not in str(caught.value)


def test_a_network_without_a_single_map_is_refused() -> None:
    with torch.device("meta"):
        net = backbones.create("crossvit_9_240", image_size=240)
        with pytest.raises(UsageError, match="no single feature map"):
            backbones.feature_maps(net, torch.zeros(1, 3, 240, 240))


def test_arguments_reach_the_network() -> None:
    net = backbones.create("test_resnet:drop_path_rate=0.5,drop_rate=0.25", image_size=32)
    assert any(isinstance(module, DropPath) for module in net.modules())
    assert net.drop_rate == 0.25


def test_sizes_and_statistics_are_the_networks_own() -> None:
    assert backbones.default_size("test_resnet") == 160
    assert backbones.default_size("swin_tiny_patch4_window7_224") == 224
    assert backbones.statistics("test_vit") == ((0.5,) * 3, (0.5,) * 3)
    assert backbones.statistics("resnet50")[0] == (0.485, 0.456, 0.406)
    for name in ("resnet50", "mobilenetv2_100", "test_vit", "pixels"):
        theirs = timm.get_pretrained_cfg(name).interpolation if name != "pixels" else "bilinear"
        assert backbones.interpolation(name) == theirs
    with pytest.raises(UsageError, match="no backbone"):
        backbones.default_size("resnat50")


# weights


def fresh(seed: int, name: str = "test_resnet", **settings: object) -> nn.Module:
    torch.manual_seed(seed)
    return timm.create_model(name, **settings)


def own(seed: int = 1, name: str = "test_resnet", size: int = 32) -> nn.Module:
    torch.manual_seed(seed)
    return backbones.create(name, image_size=size)


def equal(left: nn.Module, right: dict) -> bool:
    return all(torch.equal(v, right[k]) for k, v in left.state_dict().items())


@pytest.mark.parametrize("prefix", ["", "backbone.", "module.", "module.backbone."])
@pytest.mark.parametrize("form", ["safetensors", "pth", "wrapped", "half"])
def test_weights_load_from_every_usual_form(tmp_path: Path, prefix: str, form: str) -> None:
    given = fresh(0).state_dict()
    state = {prefix + key: value for key, value in given.items()}
    path = str(tmp_path / "weights")
    if form == "safetensors":
        save_file(state, path)
    elif form == "half":
        given = {k: v.half() if v.is_floating_point() else v for k, v in given.items()}
        torch.save({prefix + k: v for k, v in given.items()}, path)
    else:
        torch.save({"state_dict": state, "epoch": 7} if form == "wrapped" else state, path)
    net = own()
    report = backbones.load_weights(net, path, name="test_resnet")
    assert equal(net, given)
    assert not report.missing
    assert all("fc" in key for key in report.unexpected)
    assert len(report.loaded) == len(net.state_dict())


def test_what_is_missing_is_said(tmp_path: Path, caplog) -> None:
    state = fresh(0, num_classes=0).state_dict()
    del state["conv1.0.weight"]
    save_file(state | {"extra": torch.zeros(3)}, tmp_path / "w.safetensors")
    with caplog.at_level(logging.INFO):
        report = backbones.load_weights(own(), str(tmp_path / "w.safetensors"), name="test_resnet")
    assert (report.missing, report.unexpected) == (("conv1.0.weight",), ("extra",))
    assert "1 missing (conv1.0.weight), 1 unexpected (extra)" in caplog.text
    assert caplog.records[0].levelno == logging.WARNING


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    for name in ("test_vit", "test_efficientnet"):
        save_file(fresh(0, name).state_dict(), tmp_path / "w.safetensors")
        net = own()
        before = {key: value.clone() for key, value in net.state_dict().items()}
        with pytest.raises(InputError, match=r"not weights of test_resnet.*missing"):
            backbones.load_weights(net, str(tmp_path / "w.safetensors"), name="test_resnet")
        assert equal(net, before)


def test_nan_in_weights_is_refused(tmp_path: Path) -> None:
    state = fresh(0).state_dict()
    state["conv1.0.weight"][0, 0, 0, 0] = torch.nan
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(InputError, match="NaN"):
        backbones.load_weights(own(), str(tmp_path / "w.safetensors"), name="test_resnet")


def test_positions_of_a_vit_are_resampled_for_another_size(tmp_path: Path) -> None:
    given = fresh(0, "test_vit", img_size=64, num_classes=0)
    save_file(given.state_dict(), tmp_path / "w.safetensors")
    net = own(name="test_vit", size=32)
    report = backbones.load_weights(net, str(tmp_path / "w.safetensors"), name="test_vit")
    assert not report.missing
    given.set_input_size(img_size=(32, 32))  # timm's own way
    torch.testing.assert_close(net.pos_embed, given.pos_embed)
    table = {"pos_embed": torch.zeros(1, 1 + 3 * 5, net.pos_embed.shape[2])}
    assert (
        backbones.resample_positions(net, table) is table
    )  # covers no square: left to be reported


def test_a_pickle_with_code_does_not_run(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch {canary}",)

    (tmp_path / "old.pth").write_bytes(pickle.dumps({"weight": Evil()}, protocol=2))
    torch.save({"weight": Evil()}, tmp_path / "zip.pth")
    torch.save({"weight": Evil()}, tmp_path / "legacy.pth", _use_new_zipfile_serialization=False)
    for name in ("old.pth", "zip.pth", "legacy.pth"):
        with pytest.raises(InputError, match=name):
            backbones.load_weights(own(), str(tmp_path / name), name="test_resnet")
    assert not canary.exists()


def test_a_zip_bomb_is_refused_before_it_is_unpacked(tmp_path: Path) -> None:
    path = tmp_path / "bomb.pth"
    torch.save(fresh(0).state_dict(), tmp_path / "w.pth")
    with zipfile.ZipFile(tmp_path / "w.pth") as source, zipfile.ZipFile(path, "w") as bomb:
        for entry in source.infolist():
            bomb.writestr(entry, source.read(entry), compress_type=zipfile.ZIP_DEFLATED)
        bomb.writestr("w/data/999", bytes(200_000_000), compress_type=zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 3_000_000
    with pytest.raises(InputError, match="compressed"):
        backbones.load_weights(own(), str(path), name="test_resnet")


@pytest.mark.parametrize(
    "content",
    [{"weights": [1, 2]}, {"epoch": 3}, [torch.zeros(2)], torch.zeros(3), {}],
    ids=["list", "number", "sequence", "tensor", "empty"],
)
def test_other_contents_are_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "w.pth")
    with pytest.raises(InputError):
        backbones.load_weights(own(), str(tmp_path / "w.pth"), name="test_resnet")


def damaged(data: bytes, *, limit: int, seed: int) -> bytes:
    """The file cut short, or with bits flipped near its start or its end."""
    dice = random.Random(seed)
    if seed % 3 == 0:
        return data[: dice.randrange(len(data))]
    changed = bytearray(data)
    for _ in range(5):
        place = dice.randrange(min(limit, 9000))
        changed[place if seed % 2 else -place] ^= 1 << dice.randrange(8)
    return bytes(changed)


@pytest.mark.parametrize("form", ["pth", "safetensors"])
def test_damaged_files_are_refused_in_a_sentence(tmp_path: Path, form: str) -> None:
    whole, path = tmp_path / "whole", tmp_path / f"w.{form}"
    state = fresh(0).state_dict()
    torch.save(state, whole) if form == "pth" else save_file(state, whole)
    data = whole.read_bytes()
    limit = len(data) if form == "pth" else int.from_bytes(data[:8], "little")
    messages = []
    for seed in range(60):
        path.write_bytes(damaged(data, limit=limit, seed=seed))
        try:
            backbones.load_weights(own(), str(path), name="test_resnet")
        except InputError as error:  # anything else fails the test
            messages.append(str(error))
    assert len(messages) > 20
    assert all(str(path) in message and "\n" not in message for message in messages)


def test_a_missing_file_and_uncached_weights_are_input_errors(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(InputError, match="no such file"):
        backbones.load_weights(own(), str(tmp_path / "none.pth"), name="test_resnet")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def offline(*args: object, **given: object) -> None:
        raise OSError("no network\nand more lines")

    monkeypatch.setattr(timm, "create_model", offline)
    with pytest.raises(InputError, match=r"not in the cache.*no network\)"):
        backbones.load_weights(nn.Module(), "timm", name="test_resnet")
