"""How images without labels are clustered, and which of them keep their cluster as a label."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.options.group import UNRECORDED, Rule
from mltool.options.images import complete_from
from mltool.options.run import Json, MaxMemory, Seed, Threads

option = partial(typer.Option, rich_help_panel="Clusters")

CheckAgainst = Annotated[
    list[str] | None,
    option(
        "--check-against",
        metavar="LIST",
        help="Count the images that also stand in this list, such as a test set; repeatable.",
    ),
    UNRECORDED,  # an input, of which a record holds the digest
]


@dataclass(frozen=True, kw_only=True)
class PseudolabelOptions:
    """How vectors become pseudo-labels."""

    method: Annotated[
        str,
        option(
            "--method",
            help="kmeans:k=,restarts=, dbscan:eps=,min_samples= or nearest; see `list clusterers`.",
            autocompletion=complete_from("clusterers"),
        ),
    ] = "kmeans"
    reference: Annotated[
        str | None,
        option(
            "--reference",
            metavar="EMB",
            help="Labelled embeddings by the same model, whose classes `nearest` gives.",
        ),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    min_confidence: Annotated[
        float,
        option(
            "--min-confidence",
            min=0.0,
            max=1.0,
            help="Leave out images below this confidence.",
        ),
        Rule(neutral=0.0),
    ] = 0.0
    min_size: Annotated[
        int,
        option("--min-size", min=1, help="Then leave out clusters of fewer images."),
        Rule(neutral=1),
    ] = 1
    check_against: CheckAgainst = None
    seed: Seed = 0
    threads: Threads = None
    max_memory: MaxMemory = "4G"
    json: Json = False
