"""Who teaches, and what of the teacher is compared with the student."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated

import typer

from mltool.options.choices import Positives
from mltool.options.group import NONE_IS_ABSENT, UNRECORDED, Rule

option = partial(typer.Option, rich_help_panel="Teacher")
objective = partial(typer.Option, rich_help_panel="Objective")
batches = partial(typer.Option, rich_help_panel="Batches")

DEFAULT_STAGES = 4  # the last feature maps of a network


@dataclass(frozen=True, kw_only=True)
class TeacherOptions:
    """The teacher of a distillation."""

    teacher: Annotated[
        str,
        option(
            "-t",
            "--teacher",
            metavar="FILE|timm:NAME",
            help="Embeddings of the images (joined by name), a checkpoint, or a timm backbone.",
        ),
        UNRECORDED,  # an input, of which a record holds the digest
    ]
    teacher_weights: Annotated[
        str | None,
        option("--teacher-weights", metavar="FILE|timm", help="Of a backbone.  [default: timm]"),
        UNRECORDED,  # as above
    ] = None
    positives: Annotated[
        Positives,
        objective(
            "--positives",
            help="Which of the teacher's vectors are pulled; contrastive+ and regression say it.",
        ),
    ] = "class"
    symmetric: Annotated[
        bool,
        objective(
            "--symmetric/--no-symmetric",
            help="Compare the student with itself; the teacher serves mining and transfers only.",
        ),
    ] = False
    normalize: Annotated[
        bool | None,
        objective(
            "--normalize/--no-normalize",
            help="Unit vectors and cosine.  [default: unless all losses are of raw vectors]",
        ),
    ] = None
    stages: Annotated[
        int | None,
        objective(
            "--stages",
            metavar="N",
            min=1,
            help=f"The last N feature maps are compared.  [default: {DEFAULT_STAGES}]",
        ),
        NONE_IS_ABSENT,
    ] = None
    views: Annotated[
        int,
        batches("--views", min=1, help="How often an image stands in a batch."),
        Rule(neutral=1),
    ] = 1
    neighbors: Annotated[
        int | None,
        batches(
            "--neighbors",
            metavar="K",
            min=2,
            help="Batches of images with their K - 1 nearest ones.",
        ),
        NONE_IS_ABSENT,
    ] = None
