"""Random resized crops (Szegedy et al.: Going Deeper with Convolutions, CVPR 2015) and flips."""

import math

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from mltool.errors import UsageError

# As torchvision: this many draws of a shape, then the largest centre crop of a legal shape.
_TRIES = 10


class Crop:
    """A random part of the image, resized to the square the network sees, mirrored at random.

    area ~ U(scale, 1) of the image, log(aspect) ~ U(-log r, log r), flip ~ B(flip)

    Args:
        size: side of the result, in pixels.
        scale: least area of the crop, as a fraction of the image's.
        ratio: r, the largest ratio of the crop's sides.
        flip: probability of mirroring.

    The training transform of the field for photographs. Raises UsageError unless 0 < scale <= 1 and
    ratio >= 1.
    """

    def __init__(
        self, *, size: int, scale: float = 0.2, ratio: float = 1.3333, flip: float = 0.5
    ) -> None:
        if not 0 < scale <= 1 or ratio < 1:
            raise UsageError(f"crop: scale={scale} must be in (0, 1] and ratio={ratio} at least 1")
        self.size, self.scale, self.ratio, self.flip = size, scale, ratio, flip

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Crop and resize an image, uint8 [3, H, W] -> uint8 [3, size, size]."""
        draws = torch.rand(2 * _TRIES + 3, generator=generator).tolist()
        top, left, height, width = self._box(image.shape[-2], image.shape[-1], draws)
        out = functional.resized_crop(
            image, top, left, height, width, [self.size, self.size], antialias=True
        )
        return functional.horizontal_flip(out) if draws[-1] < self.flip else out

    def _box(self, rows: int, columns: int, draws: list[float]) -> tuple[int, int, int, int]:
        """Return top, left, height and width of the crop of an image; `draws` lie in [0, 1)."""
        for area_draw, ratio_draw in zip(draws[:_TRIES], draws[_TRIES : 2 * _TRIES], strict=True):
            area = rows * columns * (self.scale + (1 - self.scale) * area_draw)
            aspect = math.exp((2 * ratio_draw - 1) * math.log(self.ratio))
            width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
            if 0 < width <= columns and 0 < height <= rows:
                top = int(draws[-3] * (rows - height + 1))
                left = int(draws[-2] * (columns - width + 1))
                return top, left, height, width
        height = min(rows, round(columns * self.ratio))
        width = min(columns, round(rows * self.ratio))
        return (rows - height) // 2, (columns - width) // 2, height, width
