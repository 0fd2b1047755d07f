"""Augmentations are functions of the image and the generator, with the intended distribution."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage, stats
from torchvision.transforms import v2

from mltool import components
from mltool.augmentations._boxes import DRAWS, draw_box
from mltool.augmentations.affine import Affine
from mltool.augmentations.center import Center
from mltool.augmentations.crop import Crop
from mltool.augmentations.whole import Whole
from mltool.errors import UsageError
from mltool.transforms import center_crop


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(height: int, width: int) -> torch.Tensor:
    return torch.randint(0, 256, (3, height, width), dtype=torch.uint8, generator=seeded(0))


# the pixels of these do not depend on the draw; of all others two draws of an image must differ,
# or a seed that reaches nobody would pass
DETERMINISTIC = {"center"}
SHAPE_KEPT = {"whole"}


@pytest.mark.parametrize("name", components.names("augmentations"))
@pytest.mark.parametrize(("height", "width"), [(24, 24), (24, 37), (91, 24)])
def test_contract_of_the_family(name: str, height: int, width: int) -> None:
    image = noise(height, width)
    before = image.clone()
    transform = components.load("augmentations", name, size=24)
    outs = [transform(image, seeded(seed)) for seed in (1, 1, 2)]
    shape = image.shape if name in SHAPE_KEPT else (3, 24, 24)
    assert all(out.dtype == torch.uint8 and out.shape == shape for out in outs)
    assert torch.equal(outs[0], outs[1])  # same generator, same image
    draws = {transform(image, seeded(seed)).numpy().tobytes() for seed in range(8)}
    assert (len(draws) == 1) == (name in DETERMINISTIC)
    assert torch.equal(image, before)
    state = torch.get_rng_state()
    transform(image, seeded(3))
    assert torch.equal(torch.get_rng_state(), state)  # the global generator is left alone


def test_the_centre_and_the_whole_of_an_image() -> None:
    image = noise(24, 37)
    assert torch.equal(Center(size=24)(image, seeded(1)), center_crop(image, 24))
    outs = [Whole(size=24)(image, seeded(seed)) for seed in range(8)]
    kept = [torch.equal(out, image) for out in outs]
    assert [torch.equal(out, image.flip(-1)) for out in outs] == [not same for same in kept]
    assert 0 < sum(kept) < 8


def test_affine_without_motion_is_the_centre_crop() -> None:
    still = Affine(size=16, degrees=0, scale=0, shear=0, shift=0)
    for shape in ((16, 16), (16, 29), (40, 17)):
        image = noise(*shape)
        assert torch.equal(still(image, seeded(5)), center_crop(image, 16))


def blob(height: int, width: int, row: float, column: float) -> torch.Tensor:
    rows, columns = np.mgrid[:height, :width]
    value = 255 * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 8)
    return torch.from_numpy(value.astype(np.uint8)).expand(3, -1, -1)


def centre_of_mass(image: torch.Tensor) -> np.ndarray:
    return np.array(ndimage.center_of_mass(image[0].numpy().astype(float)))


def test_affine_moves_within_its_limits() -> None:
    size = 64
    image = blob(size, size, 31.5, 31.5)
    transform = Affine(size=size, degrees=0, scale=0, shear=0, shift=0.1)
    moves = np.array(
        [(centre_of_mass(transform(image, seeded(s))) - 31.5) / size for s in range(300)]
    )
    assert np.abs(moves).max() <= 0.1 + 0.002
    assert np.abs(moves).max() > 0.095
    for axis in range(2):
        assert stats.kstest(moves[:, axis], stats.uniform(-0.1, 0.2).cdf).pvalue > 0.001


def test_affine_turns_within_its_limits() -> None:
    image = blob(64, 64, 31.5, 51.5)  # to the right of the centre
    transform = Affine(size=64, degrees=20, scale=0, shear=0, shift=0)
    offsets = np.array([centre_of_mass(transform(image, seeded(s))) - 31.5 for s in range(300)])
    radii = np.hypot(*offsets.T)
    np.testing.assert_allclose(radii, 20, atol=0.3)
    angles = np.degrees(np.arctan2(offsets[:, 0], offsets[:, 1]))
    assert stats.kstest(angles, stats.uniform(-20, 40).cdf).pvalue > 0.001


def test_affine_scales_as_it_says() -> None:
    image = blob(64, 64, 31.5, 46.5)
    transform = Affine(size=64, degrees=0, scale=0.3, shear=0, shift=0)
    growth = [centre_of_mass(transform(image, seeded(s)))[1] - 31.5 for s in range(300)]
    assert stats.kstest(np.array(growth) / 15, stats.uniform(0.7, 0.6).cdf).pvalue > 0.001


@pytest.mark.parametrize("shape", [(240, 320), (320, 240), (256, 256), (40, 400), (400, 40)])
def test_boxes_of_crop_are_distributed_as_torchvisions(shape: tuple[int, int]) -> None:
    image = torch.empty(3, *shape, dtype=torch.uint8)
    torch.manual_seed(0)
    theirs = [
        v2.RandomResizedCrop(8, scale=(0.3, 1.0), ratio=(3 / 4, 4 / 3)).make_params([image])
        for _ in range(1500)
    ]
    theirs = np.array([(p["top"], p["left"], p["height"], p["width"]) for p in theirs])
    draws = torch.rand(1500, DRAWS, generator=seeded(1)).tolist()
    ours = np.array([draw_box(*shape, area=(0.3, 1.0), ratio=4 / 3, draws=row) for row in draws])
    assert (ours[:, 0] >= 0).all()
    assert (ours[:, 0] + ours[:, 2] <= shape[0]).all()
    assert (ours[:, 1] + ours[:, 3] <= shape[1]).all()
    for quantity in (
        lambda b: b[:, 2] * b[:, 3],
        lambda b: b[:, 3] / b[:, 2],
        lambda b: b[:, 0],
        lambda b: b[:, 1],
        lambda b: b[:, 0] + b[:, 2] / 2,
    ):
        assert stats.ks_2samp(quantity(ours), quantity(theirs)).pvalue > 0.001


def test_crop_can_reach_every_position() -> None:
    draws = torch.rand(3000, DRAWS, generator=seeded(0)).tolist()
    boxes = [draw_box(6, 6, area=(0.25, 1.0), ratio=1.0, draws=row) for row in draws]
    for side in (3, 4, 5, 6):
        tops = {top for top, _, height, _ in boxes if height == side}
        assert tops == set(range(6 - side + 1))


def test_crop_flips_half_of_the_time() -> None:
    image = torch.zeros(3, 16, 16, dtype=torch.uint8)
    image[:, :, 8:] = 255  # bright on the right
    crop = Crop(size=8, scale=1.0, ratio=1.0)
    flipped = [bool(crop(image, seeded(s))[0, 0, 0] > 128) for s in range(400)]
    assert stats.binomtest(sum(flipped), 400).pvalue > 0.001
    whole = Crop(size=16, scale=1.0, ratio=1.0, flip=0.0)
    assert torch.equal(whole(image, seeded(0)), image)


@pytest.mark.parametrize(
    "text",
    ["crop:scale=0", "crop:scale=1.5", "crop:ratio=0.5", "affine:scale=1", "affine:scale=-3"],
)
def test_impossible_settings_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match=text.partition(":")[0]):
        components.load("augmentations", text, size=8)


def test_extreme_settings_stay_finite() -> None:
    image = noise(20, 20)
    for text in ("crop:scale=1e-9,ratio=50", "affine:scale=0.99,degrees=180,shear=89,shift=3"):
        transform = components.load("augmentations", text, size=20)
        for seed in range(20):
            assert transform(image, seeded(seed)).shape == (3, 20, 20)
    assert math.isfinite(float(transform(image, seeded(0)).float().mean()))
