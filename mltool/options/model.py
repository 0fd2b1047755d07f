"""Which network: a new one, a checkpoint to start from, or a bare backbone."""

from dataclasses import dataclass
from functools import partial
from typing import Annotated, Literal

import typer

from mltool.options.group import NONE_IS_ABSENT, Rule, check_rules
from mltool.options.images import (
    ImageSize,
    KeepAspect,
    Resize,
    check_sizes,
    complete_from,
)

VECTORS = "vectors"  # the --arch, and the backbone, of a head

option = partial(typer.Option, rich_help_panel="Model")

Weights = Annotated[
    str | None,
    option(
        "--weights",
        metavar="FILE|timm",
        help="Backbone weights: a .safetensors or .pth file, or timm's own.",
    ),
    NONE_IS_ABSENT,
]
Init = Annotated[
    str | None,
    option("--init", metavar="MODEL", help="Start from this checkpoint."),
    # an input, of which a record holds the digest
    Rule(
        recorded=False,
        excludes=("weights",),
        because="brings the weights of a backbone",
    ),
]
KeepOptimizer = Annotated[
    bool,
    option(
        "--keep-optimizer",
        help="Go on with the state of the run that wrote --init with --save-optimizer.",
    ),
    Rule(neutral=False, needs="init"),
]


@dataclass(frozen=True, kw_only=True)
class ModelOptions:
    """The network that learns.

    Raises UsageError for --weights beside --init, and for --keep-optimizer without it.
    """

    arch: Annotated[
        str | None,
        option(
            "-a",
            "--arch",
            metavar="NAME",
            help="A timm backbone; or `vectors`: a head on cached vectors, then DATA are .h5 "
            "files.  [default: resnet50]",
        ),
    ] = None
    weights: Weights = None
    init: Init = None
    keep_optimizer: KeepOptimizer = False
    dim: Annotated[
        int | None,
        option(
            "--dim",
            min=1,
            help="Length of an embedding.  [default: 512; in distill the teacher's where vectors "
            "are compared with it]",
        ),
    ] = None
    pooling: Annotated[
        str | None,
        option(
            "--pooling",
            help="See `list poolings`.  [default: gem]",
            autocompletion=complete_from("poolings"),
        ),
    ] = None
    projection: Annotated[
        Literal["linear", "conv", "linear-bn", "layernorm", "none"] | None,
        option(
            "--projection",
            help="From the pooled features to the embedding.  [default: linear; none with "
            "--weights, unless --dim is said]",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_rules(self)

    @property
    def is_pretrained(self) -> bool:
        """Whether the network has learned before: from --weights or --init."""
        return self.weights is not None or self.init is not None

    def adds_projection(self, *, needs_length: bool = False) -> bool:
        """Return whether the network gets a new projection.

        Behind a pretrained backbone it gets none unless one is said or an embedding of a certain
        length is needed: a new projection forgets more than it learns (`recipes/RESULTS.md`, "The
        defaults").
        """
        if self.init is not None:
            return False  # the checkpoint brings the one that it has
        if self.projection is not None:
            return self.projection != "none"
        return self.weights is None or self.dim is not None or needs_length


@dataclass(frozen=True, kw_only=True)
class SourceOptions:
    """The network that embeds, where it is not a checkpoint that says all of itself.

    Raises UsageError for a --resize below --image-size.
    """

    weights: Weights = None
    pooling: Annotated[
        str | None,
        option(
            "--pooling",
            help="Of a bare backbone.  [default: avg]",
            autocompletion=complete_from("poolings"),
        ),
    ] = None
    image_size: ImageSize = None
    resize: Resize = None
    keep_aspect: KeepAspect = False

    def __post_init__(self) -> None:
        check_sizes(self.image_size, self.resize)
