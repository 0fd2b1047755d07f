"""Random changes of colour and sharpness, as self-supervised methods apply them to a crop."""

import math
from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

_KERNEL_RADIUS = 3.0  # standard deviations; what a Gaussian has beyond rounds to nothing in uint8
_MIDDLE_GRAY = 128  # solarisation inverts this value and all above
_CHANGES = 4  # brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Photometric:
    """Colour jitter in random order, then grey, blur and solarisation, each with a probability.

    Factors of brightness, contrast and saturation are drawn from U(max(0, 1 - s), 1 + s), the shift
    of the hue, as a fraction of the colour circle, from U(-hue, hue).
    """

    jitter: float  # probability that colours change at all
    brightness: float
    contrast: float
    saturation: float
    hue: float
    gray: float  # probability
    blur: float  # probability
    sigma: tuple[float, float]  # range of the blur's standard deviation, in pixels
    solarize: float  # probability

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Change an image, uint8 [3, H, W] -> uint8 [3, H, W]."""
        # always all draws, so that the strength of one change moves no other
        order = torch.randperm(_CHANGES, generator=generator).tolist()
        amounts = torch.rand(_CHANGES, generator=generator).tolist()
        jitter, gray, blur, sigma, solarize = torch.rand(5, generator=generator).tolist()
        if jitter < self.jitter:
            image = self._jitter(image, order, amounts)
        if gray < self.gray:
            image = functional.rgb_to_grayscale(image, num_output_channels=3)
        if blur < self.blur:
            least, largest = self.sigma
            image = _blur(image, least + (largest - least) * sigma)
        if solarize < self.solarize:
            image = functional.solarize(image, _MIDDLE_GRAY)
        return image

    def _jitter(self, image: Tensor, order: list[int], amounts: list[float]) -> Tensor:
        """Change the colours of an image; `amounts` lie in [0, 1)."""
        for change in order:
            amount = amounts[change]
            if change == 0 and self.brightness:
                image = functional.adjust_brightness(image, _factor(self.brightness, amount))
            elif change == 1 and self.contrast:
                image = functional.adjust_contrast(image, _factor(self.contrast, amount))
            elif change == 2 and self.saturation:
                image = functional.adjust_saturation(image, _factor(self.saturation, amount))
            elif change == 3 and self.hue:
                image = functional.adjust_hue(image, self.hue * (2 * amount - 1))
        return image


def _factor(strength: float, amount: float) -> float:
    least, largest = max(0.0, 1 - strength), 1 + strength
    return least + (largest - least) * amount


def _blur(image: Tensor, sigma: float) -> Tensor:
    # a reflected border must be narrower than the image
    radius = min(math.ceil(_KERNEL_RADIUS * sigma), min(image.shape[-2:]) - 1)
    if radius < 1:
        return image
    return functional.gaussian_blur(image, [2 * radius + 1] * 2, [sigma] * 2)
