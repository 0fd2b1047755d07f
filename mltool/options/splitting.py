"""How training images are divided among learners."""

from dataclasses import dataclass, replace
from functools import partial
from typing import Annotated

import typer

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError
from mltool.options.group import UNRECORDED, Rule, check_rules
from mltool.options.images import complete_from
from mltool.options.run import Json, MaxMemory, Seed, Threads

option = partial(typer.Option, rich_help_panel="Clusters")


@dataclass(frozen=True, kw_only=True)
class SplitOptions:
    """How vectors become clusters, one for each learner. Raises UsageError for a contradiction."""

    clusters: Annotated[
        int,
        option("-k", "--clusters", min=1, help="Clusters, before --double makes twice as many."),
    ] = 4
    previous: Annotated[
        str | None,
        option(
            "--previous",
            metavar="SPLIT.csv",
            help="The split before: each cluster keeps the number of the one it shares most with.",
        ),
        UNRECORDED,  # an input, of which a record holds the digest
    ] = None
    double: Annotated[
        bool,
        option("--double", help="Then cut every cluster P in two: clusters 2P and 2P + 1."),
        Rule(neutral=False),
    ] = False
    random: Annotated[
        bool,
        option("--random", help="Deal whole classes at random instead of clustering vectors."),
        Rule(neutral=False, excludes=("method",), because="looks at no vectors"),
    ] = False
    method: Annotated[
        str,
        option(
            "--method",
            help="kmeans:iterations=,restarts=,sample=; see `list clusterers`.",
            autocompletion=complete_from("clusterers"),
        ),
    ] = "kmeans:sample=100000"
    min_classes: Annotated[
        int,
        option(
            "--min-classes",
            min=1,
            help="Merge a cluster with fewer classes of two images or more into the nearest.",
        ),
    ] = 8
    seed: Seed = 0
    threads: Threads = None
    max_memory: MaxMemory = "4G"
    json: Json = False

    def __post_init__(self) -> None:
        check_rules(self)


def parse_method(text: str) -> Choice:
    """Return the clusterer of `--method` without its number of clusters. Raises UsageError."""
    choice = components.parse("clusterers", text)
    settings = dict(choice.settings)
    if "k" not in settings:
        raise UsageError(
            f"--method {text} decides by itself how many clusters it forms; take kmeans"
        )
    if any(item.startswith("k=") for item in text.partition(":")[2].split(",")):
        raise UsageError(f"--method {text}: the number of clusters is said by -k alone")
    del settings["k"]
    return replace(choice, settings=tuple(settings.items()))


def add_count(choice: Choice, count: int) -> Choice:
    """Return a choice of `parse_method` that forms `count` clusters."""
    return replace(choice, settings=(("k", count), *choice.settings))
