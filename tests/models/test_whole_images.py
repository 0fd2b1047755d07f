"""Whole images: resized by their longer side, of unequal sizes in a batch."""

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch.nn import functional

from mltool.errors import UsageError
from mltool.models import spec as specs
from mltool.models.embedder import Embedder, build
from mltool.transforms import LEAST_SIDE, resize_longer, to_tensor

SIZES = [(40, 64), (64, 40), (40, 64), (64, 64), (33, 50), (64, 40), (40, 64)]


def model(**changed) -> Embedder:
    settings = {
        "pooling": "gem",
        "projection": "linear",
        "dim": 8,
        "image_size": 64,
        "resize": None,
        "weights": None,
        "seed": 0,
        "keep_aspect": True,
    }
    return build("test_resnet", **settings | changed).eval()


def images() -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [
        torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8) for size in SIZES
    ]


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ((480, 640), (48, 64)),
        ((640, 480), (64, 48)),
        ((64, 64), (64, 64)),
        ((40, 50), (40, 50)),
        ((10, 16), (20, LEAST_SIDE)),
        ((1, 1), (LEAST_SIDE, LEAST_SIDE)),
        ((10_000, 3), (48, 3)),
    ],
)
def test_the_longer_side_is_bounded(given, expected):
    image = torch.zeros(3, *given, dtype=torch.uint8)
    assert resize_longer(image, 64).shape[1:] == expected


def test_shrinking_looks_as_pillow_does_it():
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8)
    pixels = np.asarray(Image.fromarray(pixels).resize((450, 300), Image.Resampling.BICUBIC))
    thumbnail = Image.fromarray(pixels)
    thumbnail.thumbnail((64, 64), Image.Resampling.BILINEAR)
    ours = resize_longer(to_tensor(pixels.copy()), 64).permute(1, 2, 0).numpy()
    assert ours.shape == np.asarray(thumbnail).shape
    assert np.abs(ours.astype(int) - np.asarray(thumbnail)).mean() < 2


def test_a_batch_of_unequal_sizes_is_that_of_single_images_by_hand():
    embedder = model()
    backbone = timm.create_model("test_resnet", num_classes=0).eval()
    backbone.load_state_dict(embedder.backbone.state_dict(), strict=False)
    expected = []
    for image in images():
        pixels = (image.float() - embedder.mean[0]) * embedder.scale[0]
        maps = backbone.forward_features(pixels.unsqueeze(0))
        p = 3.0
        pooled = maps.clamp(min=1e-6).pow(p).mean((2, 3)).pow(1 / p)
        expected.append(functional.normalize(embedder.after(pooled)))
    torch.testing.assert_close(embedder(images()), torch.cat(expected), rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_single_images():
    def gradients(one_by_one: bool) -> list[torch.Tensor]:
        embedder = model()
        target = torch.randn(len(SIZES), 8, generator=torch.Generator().manual_seed(1))
        if one_by_one:
            vectors = torch.cat([embedder(image.unsqueeze(0)) for image in images()])
        else:
            vectors = embedder(images())
        (vectors * target).sum().backward()
        return [p.grad for p in embedder.parameters() if p.grad is not None]

    for together, alone in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(together, alone, rtol=1e-3, atol=1e-5)


def test_a_network_for_squares_is_refused():
    with pytest.raises(UsageError, match="one shape only; leave out --keep-aspect"):
        build(
            "test_vit",
            pooling="avg",
            projection="none",
            dim=None,
            image_size=160,
            resize=None,
            weights=None,
            seed=0,
            keep_aspect=True,
        )


def test_a_shorter_side_has_no_meaning():
    with pytest.raises(UsageError, match="leave it out with --keep-aspect"):
        model(resize=72)
    with pytest.raises(UsageError, match="takes whole images"):
        model().spec.change_size(None, 72)


def test_the_spec_says_it_and_models_from_before_are_read():
    spec = model().spec
    assert '"keep_aspect": true' in spec.preprocess
    assert specs.from_dict(spec.to_dict(), "m") == spec
    assert spec.change_size(128, None).resize == 128
    squares = model(keep_aspect=False).spec
    assert "keep_aspect" not in squares.preprocess
    assert "keep_aspect" not in squares.to_dict()
    for before in (squares.to_dict(), squares.to_dict() | {"keep_aspect": False}):
        assert specs.from_dict(before, "m") == squares
