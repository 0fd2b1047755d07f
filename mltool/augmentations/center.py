"""No augmentation: training sees images as the test does."""

from torch import Generator, Tensor

from mltool.transforms import center_crop


class Center:
    """The centre crop, the same every time.

    x' = centre square of x
    """

    def __init__(self, *, size: int) -> None:
        self.size = size

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Crop an image, uint8 [3, H, W] -> uint8 [3, size, size]."""
        return center_crop(image, self.size)
