"""Listening changes nothing, and hears what the embedding was made of."""

import pytest
import torch
from tiny_runs import SIZE, model

from mltool.errors import UsageError
from mltool.models.embedder import Embedder
from mltool.models.features import FeatureHooks

NETWORKS = [
    ("test_resnet", {}, 4),
    ("test_efficientnet", {}, 3),
    ("test_vit", {"image_size": 160, "resize": 160}, 2),
]


def pixels(embedder: Embedder, count: int = 3) -> torch.Tensor:
    size = embedder.spec.crop
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 255, (count, 3, size, size), generator=generator, dtype=torch.uint8)


@pytest.mark.parametrize(("arch", "size", "stages"), NETWORKS, ids=lambda x: str(x))
def test_the_embedding_stays_and_one_pass_is_made(arch: str, size: dict, stages: int) -> None:
    alone, heard = model(arch=arch, **size).eval(), model(arch=arch, **size).eval()
    listener = FeatureHooks(heard, stages)
    passes = []
    stem = next(heard.backbone.children())
    stem.register_forward_hook(lambda *given: passes.append(1))
    images = pixels(alone)
    with torch.no_grad():
        assert torch.equal(alone(images), heard(images))
        pooled = alone.penultimate(images)
    assert len(passes) == 1
    assert torch.equal(listener.pooled, pooled)
    assert listener.pooled_dim == pooled.shape[1]
    assert len(listener.maps) == stages
    assert tuple(maps.shape[1] for maps in listener.maps) == listener.channels
    assert all(maps.ndim == 4 and len(maps) == 3 for maps in listener.maps)


def test_gradients_pass_through_what_was_heard() -> None:
    heard = model().train()
    listener = FeatureHooks(heard, 3)
    heard(pixels(heard))
    (sum(maps.sum() for maps in listener.maps) + listener.pooled.sum()).backward()
    gradients = [p.grad for p in heard.backbone.parameters() if p.grad is not None]
    assert any(bool(g.any()) for g in gradients)


def test_listening_moves_no_statistics_and_no_mode() -> None:
    heard, alone = model().train(), model()
    FeatureHooks(heard, 4)
    assert heard.training
    for key, value in alone.state_dict().items():
        assert torch.equal(heard.state_dict()[key], value), key


def test_pooled_features_alone() -> None:
    heard = model()
    listener = FeatureHooks(heard, 0)
    heard(pixels(heard))
    assert listener.maps == []
    assert listener.channels == ()
    assert listener.pooled.shape == (3, listener.pooled_dim)


def test_networks_without_so_many_stages() -> None:
    with pytest.raises(UsageError, match="lower --stages 9"):
        FeatureHooks(model(), 9)
    raw = model(arch="pixels", pooling="flatten", projection="none", dim=None)
    assert raw.spec.crop == SIZE
    with pytest.raises(UsageError, match="another --arch"):
        FeatureHooks(raw, 1)
