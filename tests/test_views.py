"""Views of self-supervision: torchvision's operations, with the intended probabilities."""

import colorsys
import dataclasses
import math
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms import v2

from mltool import components
from mltool.augmentations import _photometric
from mltool.augmentations._boxes import DRAWS, draw_box
from mltool.augmentations._photometric import Photometric
from mltool.augmentations.crop import Crop
from mltool.augmentations.views import Views
from mltool.errors import UsageError

NOTHING = Photometric(0, 0, 0, 0, 0, 0, 0, (0.1, 2.0), 0)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=seeded(seed))


def changed(**strengths: object) -> Photometric:
    return dataclasses.replace(NOTHING, **strengths)


def test_nothing_changes_without_a_strength() -> None:
    for seed in range(5):
        assert torch.equal(NOTHING(noise(9, 7), seeded(seed)), noise(9, 7))


def test_jitter_is_torchvisions_in_every_order() -> None:
    ours = changed(jitter=1, brightness=0.8, contrast=0.7, saturation=0.6, hue=0.2)
    theirs = v2.ColorJitter(0.8, 0.7, 0.6, 0.2)
    image = noise(16, 19)
    for number, order in enumerate(permutations(range(4))):
        amounts = torch.rand(4, generator=seeded(number)).tolist()
        params = {
            "fn_idx": torch.tensor(order),
            "brightness_factor": 0.2 + 1.6 * amounts[0],
            "contrast_factor": 0.3 + 1.4 * amounts[1],
            "saturation_factor": 0.4 + 1.2 * amounts[2],
            "hue_factor": -0.2 + 0.4 * amounts[3],
        }
        expected = theirs.transform(image, params)
        assert torch.equal(ours._jitter(image, list(order), amounts), expected)


def test_orders_of_jitter_are_equally_likely(monkeypatch) -> None:
    orders: Counter = Counter()

    def note(self: Photometric, image: torch.Tensor, order: list, amounts: list) -> torch.Tensor:
        orders[tuple(order)] += 1
        return image

    monkeypatch.setattr(Photometric, "_jitter", note)
    for seed in range(2400):
        changed(jitter=1)(noise(2, 2), seeded(seed))
    assert len(orders) == 24
    assert stats.chisquare(list(orders.values())).pvalue > 0.001


def test_brightness_and_hue_are_uniform() -> None:
    gray = torch.full((3, 2, 2), 100, dtype=torch.uint8)
    bright = changed(jitter=1, brightness=0.5)
    factors = [float(bright(gray, seeded(s))[0, 0, 0]) / 100 for s in range(400)]
    assert stats.kstest(factors, stats.uniform(0.5, 1.0).cdf).pvalue > 0.001
    strong = changed(jitter=1, brightness=2.0)  # never below a factor of 0
    assert min(int(strong(gray, seeded(s)).min()) for s in range(100)) >= 0
    red = torch.tensor([220, 40, 40], dtype=torch.uint8).reshape(3, 1, 1)
    turn = changed(jitter=1, hue=0.3)
    hues = [colorsys.rgb_to_hsv(*turn(red, seeded(s)).flatten().tolist())[0] for s in range(400)]
    shifts = [(hue + 0.5) % 1 - 0.5 for hue in hues]
    assert stats.kstest(shifts, stats.uniform(-0.3, 0.6).cdf).pvalue > 0.001


@pytest.mark.parametrize(
    ("strengths", "probability"),
    [
        ({"jitter": 0.8, "hue": 0.5}, 0.8),
        ({"gray": 0.2}, 0.2),
        ({"blur": 0.5, "sigma": (1.0, 2.0)}, 0.5),
        ({"solarize": 0.3}, 0.3),
    ],
)
def test_every_change_has_its_probability(strengths: dict, probability: float) -> None:
    image = noise(8, 8)
    change = changed(**strengths)
    count = sum(not torch.equal(change(image, seeded(s)), image) for s in range(600))
    assert stats.binomtest(count, 600, probability).pvalue > 0.001


def test_changes_are_independent() -> None:
    """One number that decided two changes would apply both to the same images."""
    image = noise(6, 6)
    gray, solarized = changed(gray=0.5), changed(solarize=0.5)
    table = np.zeros((2, 2))
    for seed in range(600):
        first = torch.equal(gray(image, seeded(seed)), image)
        second = torch.equal(solarized(image, seeded(seed)), image)
        table[int(first), int(second)] += 1
    assert stats.fisher_exact(table).pvalue > 0.001


def test_gray_and_solarised_images() -> None:
    image = noise(11, 13)
    weights = np.array([0.2989, 0.587, 0.114]).reshape(3, 1, 1)
    expected = (image.numpy() * weights).sum(0, keepdims=True).repeat(3, axis=0)
    grays = changed(gray=1)(image, seeded(0))
    np.testing.assert_allclose(grays.numpy(), expected, atol=1)
    values = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    inverted = np.where(values.numpy() >= 128, 255 - values.numpy(), values.numpy())
    np.testing.assert_array_equal(changed(solarize=1)(values, seeded(0)).numpy(), inverted)


@pytest.mark.parametrize("sigma", [0.4, 1.0, 2.0, 5.0])
def test_blur_is_gaussian(sigma: float) -> None:
    image = noise(40, 33)
    blurred = changed(blur=1, sigma=(sigma, sigma))(image, seeded(0))
    radius = math.ceil(3 * sigma)
    expected = [
        ndimage.gaussian_filter(channel.astype(float), sigma, mode="mirror", radius=radius)
        for channel in image.numpy()
    ]
    np.testing.assert_allclose(blurred.numpy(), np.stack(expected), atol=0.51)


def test_sigma_is_uniform(monkeypatch) -> None:
    drawn: list[float] = []
    monkeypatch.setattr(_photometric, "_blur", lambda image, sigma: drawn.append(sigma) or image)
    for seed in range(400):
        changed(blur=1, sigma=(0.5, 3.0))(noise(2, 2), seeded(seed))
    assert stats.kstest(drawn, stats.uniform(0.5, 2.5).cdf).pvalue > 0.001


@pytest.mark.parametrize("shape", [(1, 1), (1, 30), (2, 2), (3, 50), (400, 5)])
def test_the_smallest_images_have_views(shape: tuple[int, int]) -> None:
    views = Views(size=4, small_size=0.01, blur=(1.0,), sigma=(2.0, 9.0), solarize=(0.5,))
    for view, make in enumerate(views.views):
        out = make(noise(*shape), seeded(view))
        assert out.dtype == torch.uint8
        assert out.shape == ((3, 4, 4) if view < 2 else (3, 1, 1))


@pytest.mark.parametrize("area", [(0.05, 0.14), (0.3, 0.9)])
def test_boxes_are_distributed_as_torchvisions(area: tuple[float, float]) -> None:
    image = torch.empty(3, 240, 320, dtype=torch.uint8)
    torch.manual_seed(0)
    crop = v2.RandomResizedCrop(8, scale=area, ratio=(3 / 4, 4 / 3))
    params = [crop.make_params([image]) for _ in range(1000)]
    theirs = np.array([(p["top"], p["left"], p["height"], p["width"]) for p in params])
    draws = torch.rand(1000, DRAWS, generator=seeded(1)).tolist()
    ours = np.array([draw_box(240, 320, area=area, ratio=4 / 3, draws=row) for row in draws])
    for quantity in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
    ):
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).pvalue > 0.001


def test_views_without_changes_are_crops() -> None:
    text = "views:jitter=0,gray=0,blur=0,large_area=0.2+1,small_area=0.2+1,small_size=0.5"
    views = components.load("augmentations", text, size=16)
    assert len(views.views) == 6
    for number, view in enumerate([*views.views, views]):
        crop = Crop(size=8 if number in range(2, 6) else 16, scale=0.2, ratio=4 / 3)
        for seed in range(5):
            assert torch.equal(view(noise(20, 31), seeded(seed)), crop(noise(20, 31), seeded(seed)))


def test_views_change_their_crops() -> None:
    text = "views:jitter=1,gray=0.3,blur=0.4,solarize=0.2,flip=0.5"
    views = components.load("augmentations", text, size=16)
    image = noise(20, 31)
    for seed in range(20):
        generator = seeded(seed)
        cropped = Crop(size=16, scale=0.14, ratio=4 / 3)(image, generator)
        expected = views.views[0].photometric(cropped, generator)
        assert torch.equal(views(image, seeded(seed)), expected)
        assert not torch.equal(expected, cropped)


def test_numbers_and_sizes_of_views() -> None:
    def sizes(text: str, size: int) -> list[int]:
        return [view.size for view in components.load("augmentations", text, size=size).views]

    assert sizes("views", 224) == [224] * 2 + [96] * 4
    assert sizes("views:small=0", 224) == [224] * 2
    assert sizes("views:large=3,small=1,small_size=0.5", 32) == [32] * 3 + [16]


def test_views_may_differ_in_blur_and_solarisation() -> None:
    text = "views:small=2,blur=1+0.1,solarize=0+0.2+0.3"
    views = components.load("augmentations", text, size=16).views
    assert [view.photometric.blur for view in views] == [1, 0.1, 0.1, 0.1]
    assert [view.photometric.solarize for view in views] == [0, 0.2, 0.3, 0.3]
    areas = [view.area for view in views]
    assert areas == [(0.14, 1.0)] * 2 + [(0.05, 0.14)] * 2


@pytest.mark.parametrize(
    "text",
    [
        "large_area=0.5",
        "large_area=0.9+0.2",
        "large_area=0+1",
        "small_area=0.1+1.5",
        "small_area=0.1+0.2+0.3",
        "sigma=2+1",
        "brightness=-1",
        "hue=0.6",
        "blur=0.5+2",
        "solarize=-0.1",
        "small=-1",
        "small_size=0.99",
        "large=0",
        "flip=2",
    ],
)
def test_impossible_settings_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="views: " + text.partition("=")[0]):
        components.load("augmentations", f"views:{text}", size=8)
