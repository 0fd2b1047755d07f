"""Views of self-supervised learning (SimCLR, MoCo v2, BYOL; multi-crop: SwAV, NeurIPS 2020)."""

import math
from dataclasses import replace

import torch
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional

from mltool.augmentations._boxes import DRAWS, draw_box
from mltool.augmentations._photometric import Photometric
from mltool.errors import UsageError
from mltool.settings import Fraction, Natural

_RATIO = 4 / 3  # the largest ratio of a crop's sides, as in all of the papers
_STRENGTHS = ("brightness", "contrast", "saturation", "hue")


class _View:
    """A random crop resized to a square, mirrored and changed in colour and sharpness."""

    def __init__(
        self, size: int, *, area: tuple[float, float], flip: float, photometric: Photometric
    ) -> None:
        self.size, self.area, self.flip, self.photometric = size, area, flip, photometric

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Return the view of an image, uint8 [3, H, W] -> uint8 [3, size, size]."""
        *draws, flip = torch.rand(DRAWS + 1, generator=generator).tolist()
        rows, columns = image.shape[-2:]
        box = draw_box(rows, columns, area=self.area, ratio=_RATIO, draws=draws)
        out = functional.resized_crop(image, *box, [self.size, self.size], antialias=True)
        if flip < self.flip:
            out = functional.horizontal_flip(out)
        return self.photometric(out, generator)


class Views:
    """Random crops of two sizes with jitter, grey, blur and solarisation; training takes the first.

    view = solarize(blur(gray(jitter(flip(crop(x)))))), area of the crop ~ U(large or small area)

    Args:
        size: side of the large crops, in pixels.
        large: number of large crops.
        small: number of small crops; 0 for none.
        small_size: side of the small crops, as a fraction of `size`; 96 of 224 pixels in SwAV.
        large_area: least and largest area of a large crop, as fractions of the image's. SwAV
            0.14+1, MoCo v2 0.2+1, BYOL and SimCLR 0.08+1.
        small_area: the same of small crops.
        flip: probability of mirroring.
        jitter: probability of changing the colours; brightness, contrast, saturation and hue in
            random order.
        brightness: strength s of a factor from U(max(0, 1 - s), 1 + s). MoCo v2 and BYOL 0.4, SwAV
            and SimCLR 0.8.
        contrast: the same of the contrast.
        saturation: the same of the saturation. BYOL 0.2.
        hue: largest shift of the hue, as a fraction of the circle, 0.5 at most. SwAV 0.2.
        gray: probability of dropping the colours.
        blur: probability of a Gaussian blur.
        sigma: least and largest standard deviation of the blur, in pixels.
        solarize: probability of inverting all values from 128 on.

    `blur` and `solarize` may be several numbers, one for each view, the last of them for all
    further views. BYOL is
    `views:small=0,large_area=0.08+1,saturation=0.2,blur=1+0.1,solarize=0+0.2`.

    `pretrain` takes all views, large ones first. What takes one view of an image, such as `train`,
    `distill` and `embed`, gets the first, and the others are never made. Pixels of a view depend on
    its number and settings alone: a further small crop changes no other view.

    Raises UsageError for ranges and strengths that are none, and for small crops that are not
    smaller than the large ones.
    """

    def __init__(
        self,
        *,
        size: int,
        large: int = 2,
        small: Natural = 4,
        small_size: Fraction = 0.4286,
        large_area: tuple[float, ...] = (0.14, 1.0),
        small_area: tuple[float, ...] = (0.05, 0.14),
        flip: Fraction = 0.5,
        jitter: Fraction = 0.8,
        brightness: float = 0.4,
        contrast: float = 0.4,
        saturation: float = 0.4,
        hue: float = 0.1,
        gray: Fraction = 0.2,
        blur: tuple[float, ...] = (0.5,),
        sigma: tuple[float, ...] = (0.1, 2.0),
        solarize: tuple[float, ...] = (0.0,),
    ) -> None:
        strengths = (brightness, contrast, saturation, hue)
        _check(strengths, blur=blur, solarize=solarize)
        bounds = _range("sigma", sigma, math.inf)
        plain = Photometric(jitter, *strengths, gray=gray, blur=0, sigma=bounds, solarize=0)
        areas = _range("large_area", large_area, 1.0), _range("small_area", small_area, 1.0)
        sizes = size, _choose_small(size, small_size) if small else 0
        self.views = tuple(
            _View(
                sizes[is_small],
                area=areas[is_small],
                flip=flip,
                photometric=replace(plain, blur=_pick(blur, view), solarize=_pick(solarize, view)),
            )
            for view, is_small in enumerate([False] * large + [True] * small)
        )

    def __call__(self, image: Tensor, generator: Generator) -> Tensor:
        """Return the first view of an image, uint8 [3, H, W] -> uint8 [3, size, size]."""
        return self.views[0](image, generator)


def _range(name: str, bounds: tuple[float, ...], limit: float) -> tuple[float, float]:
    """Return the two bounds of a range above 0. Raises UsageError for other ones."""
    if len(bounds) != 2 or not 0 < bounds[0] <= bounds[1] <= limit:
        upper = f", {limit:g} at most" if limit < math.inf else ""
        raise UsageError(
            f"views: {name}={'+'.join(f'{bound:g}' for bound in bounds)} must be two numbers above "
            f"0 in rising order{upper}, as in {name}=0.1+1"
        )
    return bounds[0], bounds[1]


def _check(strengths: tuple[float, ...], **probabilities: tuple[float, ...]) -> None:
    """Raise UsageError for negative strengths, too large a hue, and what is no probability."""
    for name, strength in zip(_STRENGTHS, strengths, strict=True):
        if strength < 0 or (name == "hue" and strength > 0.5):
            upper = ", 0.5 at most" if name == "hue" else ""
            raise UsageError(f"views: {name}={strength:g} must be 0 or more{upper}")
    for name, values in probabilities.items():
        if not all(0 <= value <= 1 for value in values):
            raise UsageError(
                f"views: {name}={'+'.join(f'{value:g}' for value in values)} must be numbers from "
                "0 to 1, one for each view"
            )


def _choose_small(size: int, fraction: float) -> int:
    """Return the side of small crops. Raises UsageError if large ones are no larger."""
    side = max(1, round(fraction * size))
    if side == size:
        raise UsageError(
            f"views: small_size={fraction:g} makes small crops as large as the {size} pixels of "
            "the large ones; lower it, or add more by large="
        )
    return side


def _pick(values: tuple[float, ...], view: int) -> float:
    return values[min(view, len(values) - 1)]
