"""Whole images, mirrored at random: no part is cut off, no side is stretched."""

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional


class Whole:
    """The whole image, mirrored at random; with --keep-aspect images keep their shapes.

    flip ~ B(flip)
    """

    def __init__(self, *, size: int, flip: float = 0.5) -> None:
        self.size, self.flip = size, flip

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Return the image or its mirror image, uint8 [3, H, W] -> uint8 [3, H, W]."""
        mirrored = float(torch.rand((), generator=generator)) < self.flip
        return functional.horizontal_flip(image) if mirrored else image
