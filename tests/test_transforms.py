"""Resizing and cropping against Pillow and torchvision, on odd sizes too."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from mltool.transforms import LONGEST_STRIP, center_crop, resize_shorter, to_tensor

SIZES = [(37, 53), (53, 37), (64, 64), (17, 101), (33, 32), (64, 4), (1, 5)]


def picture(height: int, width: int) -> np.ndarray:
    """Smooth colours with some texture."""
    rows, columns = np.mgrid[:height, :width]
    waves = [128 + 100 * np.sin(rows / (3 + c)) * np.cos(columns / (5 - c)) for c in range(3)]
    return np.stack(waves, axis=-1).astype(np.uint8)


def test_to_tensor_shares_memory() -> None:
    image = picture(5, 7)
    tensor = to_tensor(image)
    assert tensor.shape == (3, 5, 7)
    image[2, 3, 1] = 99
    assert tensor[1, 2, 3] == 99


@pytest.mark.parametrize(("height", "width"), SIZES)
@pytest.mark.parametrize("size", [32, 31])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_resize_is_that_of_pillow(height: int, width: int, size: int, interpolation: str) -> None:
    image = picture(height, width)
    found = resize_shorter(to_tensor(image), size, interpolation=interpolation)
    assert found.dtype == torch.uint8
    assert min(found.shape[1:]) == size
    rows, columns = found.shape[1:]
    # the aspect ratio is kept to half a pixel of the longer side
    assert abs(max(rows, columns) - size * max(height, width) / min(height, width)) <= 0.5
    assert (rows > columns) == (height > width) or rows == columns
    method = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    pillow = np.array(Image.fromarray(image).resize((columns, rows), method[interpolation]))
    difference = np.abs(found.permute(1, 2, 0).numpy().astype(int) - pillow.astype(int))
    assert difference.max() <= 2  # both round between the two passes
    assert difference.mean() < 0.1


@pytest.mark.parametrize("turned", [False, True])
def test_of_a_strip_the_middle_is_taken(turned: bool) -> None:
    """Resized to its shorter side whole, it would fill the memory."""
    strip = to_tensor(picture(3, 1000))
    middle = strip[:, :, 476:524]
    if turned:
        strip, middle = strip.transpose(1, 2), middle.transpose(1, 2)
    found = resize_shorter(strip, 16)
    assert sorted(found.shape) == [3, 16, 16 * LONGEST_STRIP]
    assert torch.equal(found, resize_shorter(middle, 16))


def test_resize_leaves_the_right_size_alone() -> None:
    image = to_tensor(picture(32, 77))
    assert resize_shorter(image, 32) is image


def test_resize_does_not_depend_on_the_layout_in_memory() -> None:
    image = to_tensor(picture(61, 47))
    assert torch.equal(resize_shorter(image, 24), resize_shorter(image.contiguous(), 24))


@pytest.mark.parametrize(("height", "width"), [(10, 10), (11, 10), (10, 13), (15, 12)])
def test_center_crop(height: int, width: int) -> None:
    image = torch.arange(height * width).reshape(1, height, width).expand(3, -1, -1)
    found = center_crop(image, 10)
    assert found.shape == (3, 10, 10)
    top, left = divmod(int(found[0, 0, 0]), width)
    assert abs(2 * top - (height - 10)) <= 1  # as much is cut off on both sides
    assert abs(2 * left - (width - 10)) <= 1
    assert torch.equal(found, image[:, top : top + 10, left : left + 10])
    if height % 2 == 0 and width % 2 == 0:
        assert torch.equal(found, v2.functional.center_crop(image, [10, 10]))
