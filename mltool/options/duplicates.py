"""Which images count as near duplicates."""

from dataclasses import dataclass
from typing import Annotated

import typer

from mltool.options.group import NONE_IS_ABSENT, number
from mltool.options.lists import OnBadImage
from mltool.options.run import MaxMemory, Threads


@dataclass(frozen=True, kw_only=True)
class DedupOptions:
    """How close two images of a pair are."""

    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            callback=number(),
            help="Least score of a pair: the cosine of 32 px grey pictures; of vectors cosine, "
            "dot product or minus the distance.  [default: 0.98 for cosines]",
        ),
        NONE_IS_ABSENT,
    ] = None
    on_bad_image: OnBadImage = "error"
    threads: Threads = None
    max_memory: MaxMemory = "4G"
