"""Random resized crops (Szegedy et al.: Going Deeper with Convolutions, CVPR 2015) and flips."""

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from mltool.augmentations._boxes import DRAWS, draw_box
from mltool.errors import UsageError


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
        *draws, flip = torch.rand(DRAWS + 1, generator=generator).tolist()
        rows, columns = image.shape[-2:]
        box = draw_box(rows, columns, area=(self.scale, 1.0), ratio=self.ratio, draws=draws)
        out = functional.resized_crop(image, *box, [self.size, self.size], antialias=True)
        return functional.horizontal_flip(out) if flip < self.flip else out
