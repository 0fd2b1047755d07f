"""A tap sees what comes by, and a network entered at a tap does the rest of its work."""

import pytest
import torch
from torch import Tensor

from mltool.errors import UsageError
from mltool.models import backbones, stages
from mltool.models.embedder import Embedder, build
from mltool.models.stages import StageHook


def embedder(arch: str = "test_resnet", *, size: int = 64) -> Embedder:
    return build(
        arch,
        pooling="gem",
        projection="linear",
        dim=8,
        image_size=size,
        resize=size,
        weights=None,
        seed=0,
    )


def pictures(count: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 64, 64), generator=generator, dtype=torch.uint8)


STAGES = [
    ("test_resnet", ["act1", "layer1", "layer2", "layer3", "layer4"]),
    ("mobilenetv2_100", ["blocks.0", "blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
    ("pixels", []),
]


@pytest.mark.parametrize(("arch", "expected"), STAGES, ids=lambda value: str(value)[:12])
def test_names(arch: str, expected: list[str]) -> None:
    backbone = embedder(arch).backbone
    assert stages.names(backbone) == ["input", *expected, "last"]
    for stage in ("input", *expected, "last"):
        stages.check(backbone, stage)
    with pytest.raises(UsageError, match="no stage 'layer9'"):
        stages.check(backbone, "layer9")


CUTS = [
    ("test_resnet", "input"),
    ("test_resnet", "act1"),
    ("test_resnet", "layer2"),
    ("test_resnet", "last"),
    ("mobilenetv2_100", "blocks.4"),
    ("test_vit:img_size=64", "blocks.2"),
    ("test_vit:img_size=64", "last"),
    ("swin_tiny_patch4_window7_224", "layers.1"),
    ("pixels", "last"),
]


@pytest.mark.parametrize(("arch", "stage"), CUTS)
def test_entering_with_what_was_seen_gives_the_same(arch: str, stage: str) -> None:
    model, images = embedder(arch).eval(), pictures()
    whole = model(images)
    tap = StageHook(stage)
    assert torch.equal(model(images, tap=tap), whole)
    again = model(images[:1] // 2, tap=StageHook(stage, replacement=tap.seen[1:]))
    torch.testing.assert_close(again, whole[1:])
    model(images)  # and the network is as before
    assert torch.equal(model(images), whole)


def test_the_gradient_goes_through_what_was_put_in() -> None:
    model, images = embedder().train(), pictures()
    tap = StageHook("layer2")
    model(images, tap=tap)
    values = tap.seen.detach().requires_grad_()
    model(images[:1], tap=StageHook("layer2", replacement=values)).square().sum().backward()
    assert values.grad.abs().sum() > 0
    trained = {name for name, p in model.named_parameters() if p.grad is not None and p.grad.any()}
    assert any(name.startswith("backbone.layer3") for name in trained)
    assert not any(name.startswith(("backbone.layer1", "backbone.conv1")) for name in trained)


@pytest.mark.parametrize("stage", ["input", "layer2", "last"])
@pytest.mark.parametrize("frozen", [False, True])
def test_values_put_in_move_no_statistics(stage: str, frozen: bool) -> None:
    model, images = embedder().train(), pictures()
    tap = StageHook(stage)
    model(images, tap=tap)
    frozen_part = model.backbone.layer3 if frozen else model.backbone.layer1[0].bn1
    frozen_part.eval()
    modes = {module: module.training for module in model.modules()}
    momenta = [m.momentum for m in model.modules() if hasattr(m, "momentum")]
    before = {k: v.clone() for k, v in model.state_dict().items() if "running" in k}
    mixed = tap.seen.float().flip(0) * 0.5
    values = model(images[:1], tap=StageHook(stage, replacement=mixed))
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())
    assert {module: module.training for module in model.modules()} == modes
    assert [m.momentum for m in model.modules() if hasattr(m, "momentum")] == momenta
    assert not torch.equal(values[:2], model(images)[:2])
    assert any(not torch.equal(after[k], v) for k, v in before.items())  # real images do


def test_batch_statistics_are_those_of_what_was_put_in() -> None:
    model, images = embedder().train(), pictures(8)
    mixed = images[:4].float() * 0.25 + 30
    expected = model(mixed)
    model.load_state_dict(embedder().state_dict())
    torch.testing.assert_close(model(images, tap=StageHook("input", replacement=mixed)), expected)


def test_one_image_passes_where_batch_statistics_need_more() -> None:
    model = embedder(size=32).train()  # layer4 gives one pixel
    tap = StageHook("layer4")
    model(pictures()[:, :, :32, :32], tap=tap)
    assert tap.seen.shape[2:] == (1, 1)
    assert (
        len(model(pictures()[:1, :, :32, :32], tap=StageHook("layer4", replacement=tap.seen))) == 4
    )


def test_an_error_leaves_the_network_as_it_was() -> None:
    model, images = embedder().train(), pictures()
    with pytest.raises(RuntimeError):
        model(images[:1], tap=StageHook("layer2", replacement=torch.zeros(2, 5, 8, 8)))
    assert model.backbone.training
    assert all(m.momentum > 0 for m in model.modules() if hasattr(m, "momentum"))
    assert not model.backbone.layer2._forward_hooks
    with pytest.raises(UsageError, match="no stage"):
        model(images, tap=StageHook("layer9"))
    assert backbones.channels(model.backbone) == 96
