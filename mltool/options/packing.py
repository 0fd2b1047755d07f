"""How images are packed."""

from dataclasses import dataclass
from typing import Annotated

import typer

from mltool.options.group import NONE_IS_ABSENT
from mltool.options.lists import OnBadImage
from mltool.options.run import DryRun, Workers


@dataclass(frozen=True, kw_only=True)
class PackOptions:
    """What is stored of the images."""

    size: Annotated[
        int | None,
        typer.Option("--size", min=1, help="Shrink to this shorter side, as JPEG."),
        NONE_IS_ABSENT,
    ] = None
    quality: Annotated[
        int, typer.Option("--quality", min=1, max=95, help="Of the shrunk JPEGs, 1 to 95.")
    ] = 95
    on_bad_image: OnBadImage = "error"
    workers: Workers = None
    dry_run: DryRun = False
