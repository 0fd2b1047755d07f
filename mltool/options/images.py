"""How large the network sees an image, and what training does to it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool import components
from mltool.errors import UsageError
from mltool.options.group import UNRECORDED, Rule
from mltool.options.lists import OnBadImage

option = partial(typer.Option, rich_help_panel="Images")


def complete_from(*families: str, also: tuple[str, ...] = ()) -> Callable[[str], list]:
    """Return what a shell asks when the name of a component is to be completed."""

    def complete(incomplete: str) -> list:
        others = [(name, "") for name in also if name.startswith(incomplete)]
        return others + components.complete(incomplete, *families)

    return complete


ImageSize = Annotated[
    int | None,
    option("--image-size", min=1, help="Side of the square the network sees, in pixels."),
]
Resize = Annotated[
    int | None,
    option("--resize", min=1, help="Shorter side before cropping.  [default: image size x 8/7]"),
]
KeepAspect = Annotated[
    bool,
    option(
        "--keep-aspect",
        help="Whole images, their longer side --image-size at most, instead of squares.",
    ),
    Rule(neutral=False),
]


def check_sizes(crop: int | None, resize: int | None) -> None:
    """Raise UsageError for a shorter side that does not hold the square to be cropped."""
    if crop is not None and resize is not None and resize < crop:
        raise UsageError(
            f"a shorter side of {resize} pixels is smaller than the crop of {crop}; raise --resize "
            "or lower --image-size"
        )


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """The images of training. Raises UsageError for a --resize below --image-size."""

    image_size: ImageSize = None
    resize: Resize = None
    keep_aspect: KeepAspect = False
    augment: Annotated[
        str | None,
        option(
            "--augment",
            help="See `list augmentations`: crop, affine, views, center, whole.  [default: crop; "
            "whole with --keep-aspect]",
            autocompletion=complete_from("augmentations"),
        ),
    ] = None
    on_bad_image: OnBadImage = "error"
    cache: Annotated[
        Literal["ram", "off"],
        option("--cache", help="Keep decoded, resized images in memory where they fit."),
        UNRECORDED,
    ] = "ram"

    def __post_init__(self) -> None:
        check_sizes(self.image_size, self.resize)
