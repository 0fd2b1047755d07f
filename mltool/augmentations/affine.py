"""Small random affine maps, for characters, digits and other centred drawings."""

import math

import torch
from torch import Generator, Tensor
from torch.nn import functional

from mltool.errors import UsageError
from mltool.transforms import center_crop


class Affine:
    """A random rotation, scaling, shear and shift of the centre crop; no mirroring.

    x' = A x + t with A = rotation(+-degrees) * shear(+-shear) / scaling(1+-scale), |t| <= shift

    Args:
        size: side of the result, in pixels.
        degrees: largest angle of the rotation.
        scale: largest change of size, as a fraction.
        shear: largest angle of the shear, in degrees.
        shift: largest shift, as a fraction of the side.

    Pixels from outside repeat the border. Raises UsageError unless -1 < scale < 1.
    """

    def __init__(
        self,
        *,
        size: int,
        degrees: float = 10.0,
        scale: float = 0.15,
        shear: float = 10.0,
        shift: float = 0.08,
    ) -> None:
        if not -1 < scale < 1:
            raise UsageError(f"affine: scale={scale} would turn images inside out; 0.15 is usual")
        self.size = size
        self.limits = torch.tensor(
            [math.radians(degrees), scale, math.radians(shear), 2 * shift, 2 * shift]
        )

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Transform an image, uint8 [3, H, W] -> uint8 [3, size, size]."""
        draws = ((2 * torch.rand(5, generator=generator) - 1) * self.limits).tolist()
        angle, scaling, shear, across, down = draws
        cos, sin = math.cos(angle), math.sin(angle)
        zoom, skew = 1 / (1 + scaling), math.tan(shear)
        matrix = torch.tensor(
            [
                [zoom * cos, zoom * (cos * skew - sin), across],
                [zoom * sin, zoom * (sin * skew + cos), down],
            ]
        )
        source = center_crop(image, self.size).unsqueeze(0).float()
        grid = functional.affine_grid(matrix.unsqueeze(0), list(source.shape), align_corners=False)
        moved = functional.grid_sample(
            source, grid, mode="bilinear", padding_mode="border", align_corners=False
        )
        return moved.squeeze(0).round().to(torch.uint8)
