"""The whole model: preprocessing inside, every projection with every pooling, reproducible."""

import dataclasses
import math

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torchvision.transforms import v2

from mltool import components
from mltool.errors import UsageError
from mltool.models import embedder
from mltool.models.projections import PROJECTIONS
from mltool.models.spec import ModelSpec
from mltool.models.stages import StageHook


@pytest.mark.parametrize("projection", PROJECTIONS)
@pytest.mark.parametrize("pooling", components.names("poolings"))
@pytest.mark.parametrize("arch", ["test_resnet", "test_vit", "pixels"])
def test_every_projection_with_every_pooling(tiny, batch, arch, pooling, projection) -> None:
    settings = {"pooling": pooling, "projection": projection, "dim": 6, "image_size": 16}
    if projection == "none":
        settings["dim"] = None
    if pooling == "flatten" and (arch != "pixels" or projection == "conv"):
        with pytest.raises(UsageError, match="flatten"):
            tiny(arch, **settings)
        return
    model = tiny(arch, **settings)
    images = batch[:, :, :16, :16]
    vectors = model(images)
    assert vectors.shape == (4, model.spec.dim)
    assert vectors.dtype == torch.float32
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(4))
    if list(model.parameters()):
        (vectors.square() @ torch.randn(model.spec.dim)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    raw = model.eval()(images, raw=True)
    torch.testing.assert_close(nn.functional.normalize(raw), model(images))
    with torch.autocast("cpu", torch.bfloat16):
        half = model(images)
    assert half.dtype == torch.float32
    assert (half * model(images)).sum(1).min() > 0.99


def test_it_is_timm_after_torchvisions_normalisation(tiny, batch) -> None:
    model = tiny(pooling="avg", projection="none", dim=None).eval()
    torch.manual_seed(0)
    twin = timm.create_model("test_resnet", num_classes=0).eval()
    chain = v2.Compose(
        [v2.ToDtype(torch.float32, scale=True), v2.Normalize(model.spec.mean, model.spec.std)]
    )
    expected = twin(chain(batch))
    torch.testing.assert_close(model.penultimate(batch), expected, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(
        model(batch), nn.functional.normalize(expected), atol=1e-5, rtol=1e-4
    )
    torch.testing.assert_close(model(batch.float()), model(batch))


def test_pixels_are_the_image(tiny, batch) -> None:
    model = tiny("pixels", pooling="flatten", projection="none", dim=None)
    assert model.spec.dim == 3 * 32 * 32
    expected = v2.functional.normalize(batch / 255, list(model.spec.mean), list(model.spec.std))
    torch.testing.assert_close(model.penultimate(batch), expected.flatten(1), atol=1e-5, rtol=1e-5)
    assert not list(model.parameters())


def test_unnormalised_embeddings(tiny, batch) -> None:
    model = tiny()
    spec = dataclasses.replace(model.spec, normalize=False)
    free = embedder.Embedder(spec, model.backbone).eval()
    free.load_state_dict(model.state_dict())
    vectors = free(batch)
    assert not vectors.norm(dim=1).allclose(torch.ones(4))
    torch.testing.assert_close(nn.functional.normalize(vectors), model.eval()(batch))


def test_the_seed_decides_and_nothing_else(tiny, batch) -> None:
    torch.rand(5)
    first = tiny().state_dict()
    torch.rand(7)
    second = tiny().state_dict()
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(tiny(seed=1).state_dict()["after.weight"], first["after.weight"])


def test_sizes_that_are_left_out(tiny) -> None:
    spec = tiny(image_size=None, resize=None, dim=None).spec
    assert (spec.crop, spec.resize, spec.dim) == (160, 183, 96)
    assert spec.pooling == "gem:p=3.0,eps=1e-06"
    with pytest.raises(UsageError, match="--resize"):
        tiny(image_size=32, resize=16)


def test_state_has_the_keys_that_the_readme_promises(tiny) -> None:
    keys = set(tiny().state_dict())
    own = {key for key in keys if not key.startswith("backbone.")}
    assert own == {"pooling.p", "after.weight", "after.bias"}
    timms = timm.create_model("test_resnet", num_classes=0).state_dict()
    assert {key.removeprefix("backbone.") for key in keys - own} == set(timms)


def test_costs(tiny) -> None:
    class Spec:
        input_shape = (3, 8, 8)

    conv = nn.Sequential(nn.Conv2d(3, 5, 3, bias=False), nn.Flatten(), nn.Linear(180, 7))
    conv.spec, conv.mean = Spec, torch.zeros(1)
    assert embedder.count_parameters(conv) == 3 * 5 * 9 + 180 * 7 + 7
    assert embedder.count_multiply_adds(conv) == 3 * 5 * 9 * 36 + 180 * 7
    model = tiny()
    assert model.training
    embedder.count_multiply_adds(model)
    assert model.training
    assert embedder.count_multiply_adds(model.eval()) > 1e6
    assert not model.training


def test_fingerprints_tell_spaces_apart(tiny) -> None:
    prints = {
        embedder.fingerprint(tiny(**changes))
        for changes in (
            {},
            {"seed": 1},
            {"pooling": "avg"},
            {"pooling": "max"},
            {"pooling": "gem:eps=1e-3"},
            {"dim": 9},
        )
    }
    assert len(prints) == 6
    assert embedder.fingerprint(tiny()) == embedder.fingerprint(tiny(resize=40))
    model = tiny().to(memory_format=torch.channels_last)
    assert embedder.fingerprint(model) == embedder.fingerprint(tiny())


def test_gradients_reach_the_first_layer(tiny, batch) -> None:
    model = tiny()
    model(batch)[:, 0].sum().backward()
    assert math.isfinite(model.backbone.conv1[0].weight.grad.norm())
    assert model.backbone.conv1[0].weight.grad.norm() > 0


@pytest.mark.parametrize(
    ("stage", "equal"),
    [(None, True), (None, False), ("input", True), ("layer2", True), ("last", True)],
)
def test_every_pass_goes_through_the_blocks_on_maps(
    tiny, batch, monkeypatch, stage: str | None, equal: bool
) -> None:
    model = tiny(keep_aspect=True, resize=None).eval()
    images = batch if equal else [batch[0], batch[1, :, :, :24]]
    hook = StageHook(stage) if stage is not None else None
    before = model(images, tap=hook), model.penultimate(images, tap=hook)
    plain = model._pool
    monkeypatch.setattr(model, "_pool", lambda maps: 2 * plain(maps.flip(1)))
    after = model(images, tap=hook), model.penultimate(images, tap=hook)
    for one, other in zip(before, after, strict=True):
        assert one.shape == other.shape
        assert (one - other).abs().amax(dim=1).min() > 1e-3


def test_a_head_takes_vectors_as_they_are() -> None:
    spec = ModelSpec.describe_head(5, projection="linear", dim=3, space="", metric="cosine")
    head = embedder.build_head(spec, seed=0)
    assert sorted(head.state_dict()) == ["after.bias", "after.weight"]
    vectors = 10 * torch.randn(4, 5, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(head(vectors, raw=True), head.after(vectors))
    torch.testing.assert_close(head(vectors), functional.normalize(head.after(vectors)))
    assert torch.equal(head.penultimate(vectors), vectors)
    hook = StageHook("input", replacement=2 * vectors)
    torch.testing.assert_close(head(vectors[:1], tap=hook), head(2 * vectors))
    assert embedder.count_multiply_adds(head) == 15
    assert head.double()(vectors).dtype == torch.float64
    with pytest.raises(UsageError, match="conv"):
        embedder.build_head(dataclasses.replace(spec, projection="conv"), seed=0)
