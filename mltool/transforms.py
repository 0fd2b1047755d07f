"""The deterministic part of image preparation: resizing and the centre crop.

Images are uint8 [3, H, W] tensors until they reach the model, which normalises them itself.
"""

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

LEAST_SIDE = 32  # pixels of the longer side; below, networks that halve five times see nothing
LONGEST_STRIP = 16  # times the shorter side; pixels beyond never reach a crop of the centre


def to_tensor(image: np.ndarray) -> Tensor:
    """Return an [H, W, 3] array as a [3, H, W] tensor over the same memory (channels last)."""
    return torch.from_numpy(image).permute(2, 0, 1)


def resize_shorter(image: Tensor, size: int, *, interpolation: str = "bilinear") -> Tensor:
    """Resize an image [3, H, W] to a shorter side of `size`, antialiased; unchanged if it is."""
    image = _cut_strip(image)
    height, width = image.shape[-2:]
    if min(height, width) == size:
        return image
    scale = size / min(height, width)
    target = [max(size, round(height * scale)), max(size, round(width * scale))]
    if height <= width:
        target[0] = size
    else:
        target[1] = size
    mode = InterpolationMode(interpolation)
    return functional.resize(image, target, interpolation=mode, antialias=True)


def resize_longer(image: Tensor, size: int, *, interpolation: str = "bilinear") -> Tensor:
    """Resize a whole image [3, H, W] to a longer side of at most `size`, antialiased.

    Images are never enlarged, unless the longer side has less than 32 pixels. A strip is cut to 16
    times its shorter side: resized whole, its shorter side would vanish.
    """
    image = _cut_strip(image)
    height, width = image.shape[-2:]
    longer = max(height, width)
    target = min(size, max(longer, LEAST_SIDE))
    if target == longer:
        return image
    shape = [max(1, round(side * target / longer)) for side in (height, width)]
    mode = InterpolationMode(interpolation)
    return functional.resize(image, shape, interpolation=mode, antialias=True)


def _cut_strip(image: Tensor) -> Tensor:
    """Cut a strip to its middle: resized by its shorter side, a long one would fill the memory."""
    height, width = image.shape[-2:]
    longest = LONGEST_STRIP * min(height, width)
    if max(height, width) <= longest:
        return image
    top, left = max(0, (height - longest) // 2), max(0, (width - longest) // 2)
    return image[:, top : top + longest, left : left + longest]


def center_crop(image: Tensor, size: int) -> Tensor:
    """Crop the centre square [3, size, size] of an image that is at least that large."""
    height, width = image.shape[-2:]
    top, left = (height - size) // 2, (width - size) // 2
    return image[:, top : top + size, left : left + size]
