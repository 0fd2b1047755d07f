"""What is searched for, what is measured, what is drawn."""

from dataclasses import dataclass
from typing import Annotated, Literal

import typer

from mltool.options.batches import BatchSize, ClassesPerBatch, ImagesPerClass
from mltool.options.group import NONE_IS_ABSENT, UNRECORDED, Rule, check_rules, number
from mltool.options.images import complete_from
from mltool.options.run import Device, Json, MaxMemory, Seed, Threads, Workers, option

DEFAULT_METRICS = "precision@1,recall@10,r_precision,map@r"

EmbeddingFiles = Annotated[
    list[str],
    typer.Argument(
        metavar="EMB...",
        help="Embeddings: .h5 files, folders of shards or quoted globs, in this order.",
        show_default=False,
    ),
]
Database = Annotated[
    str,
    typer.Argument(
        metavar="DB",
        help="An index, or embeddings (searched exactly): a file, a folder of shards or a quoted "
        "glob.",
        show_default=False,
    ),
]
QueryTexts = Annotated[
    list[str],
    typer.Argument(
        metavar="QUERIES...",
        help="Embeddings like DB; with --model images: files, folders, lists or -.",
        show_default=False,
    ),
]


def check_part(text: str | None) -> str | None:
    """Return what names a part as it is. Raises BadParameter for what names none."""
    if text is not None and text != "all" and not (text.isascii() and text.isdigit()):
        raise typer.BadParameter(f"no part {text!r}; name its number, counted from 0, or all")
    return text


def check_parts(texts: list[str] | None) -> list[str] | None:
    """Return what names parts as they are. Raises BadParameter for what names none."""
    for text in texts or ():
        check_part(text)
    return texts


AnyModel = Annotated[
    bool,
    typer.Option("--any-model", help="Compare vectors of different models."),
    Rule(neutral=False),
]


@dataclass(frozen=True, kw_only=True)
class ResourceOptions:
    """What an exact search may use; none of it changes the result."""

    max_memory: MaxMemory = "4G"
    device: Annotated[str, option("-d", "--device", help="cpu, cuda or cuda:N."), UNRECORDED] = (
        "cpu"
    )
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions:
    """What is measured and written. Raises UsageError for what does not fit together."""

    protocol: Annotated[
        Literal["revisited"] | None,
        typer.Option("--protocol", help="mAP and mP@k of revisited Oxford and Paris."),
        Rule(
            neutral=None,
            needs="ground_truth",
            because="fixes what is measured",
            excludes=("metrics", "keep_self", "bootstrap", "per_class", "run"),
        ),
    ] = None
    ground_truth: Annotated[
        str | None,
        typer.Option(
            "--ground-truth", metavar="FILE", help="Its answers: gnd_NAME.pkl, or a .json of them."
        ),
        Rule(recorded=False, needs="protocol"),  # an input, of which a record holds the digest
    ] = None
    distractors: Annotated[
        list[str] | None,
        typer.Option(
            "--distractors", metavar="EMB", help="Wrong rows to add to its gallery; repeatable."
        ),
        Rule(recorded=False, needs="protocol"),  # an input, of which a record holds the digest
    ] = None
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            help="Of precision@1, recall@K, r_precision, map@r, map, mrr, nmi, ami, f1, purity; "
            "with a GALLERY to learn from also knn-accuracy@K, linear-accuracy.",
        ),
    ] = DEFAULT_METRICS
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="Keep the gallery row with the query's own name.")
    ] = False
    any_model: AnyModel = False
    part: Annotated[
        str | None,
        typer.Option(
            "--part",
            metavar="all|K",
            callback=check_part,
            help="Slice K alone, from 0; or all, each normalised, side by side.",
        ),
        NONE_IS_ABSENT,
    ] = None
    bootstrap: Annotated[
        int,
        typer.Option("--bootstrap", metavar="N", min=0, help="95 % intervals from N resamplings."),
        Rule(neutral=0),
    ] = 0
    seed: Seed = 0
    per_query: Annotated[
        str | None,
        typer.Option("--per-query", metavar="FILE.csv", help="The values of each query."),
        UNRECORDED,
    ] = None
    per_class: Annotated[
        str | None,
        typer.Option("--per-class", metavar="FILE.csv", help="Their means by class."),
        UNRECORDED,
    ] = None
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="FILE.run", help="The best 100 hits, for trec_eval."),
        UNRECORDED,
    ] = None
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE.json", help="The report as JSON."),
        UNRECORDED,
    ] = None
    json: Json = False

    def __post_init__(self) -> None:
        check_rules(self)


@dataclass(frozen=True, kw_only=True)
class SearchOptions:
    """Which hits are wanted, and where they are written."""

    k: Annotated[int, typer.Option("-k", min=1, help="Hits of each query.")] = 10
    output: Annotated[
        str | None,
        typer.Option(
            "-o", "--output", metavar="FILE", help="HDF5, or .tsv or .run (TREC) by its ending."
        ),
        UNRECORDED,
    ] = None
    min_score: Annotated[
        float | None,
        typer.Option(
            "--min-score",
            callback=number(),
            help="Leave out hits below: cosine, dot, minus the distance.",
        ),
        NONE_IS_ABSENT,
    ] = None
    skip_self: Annotated[
        bool, typer.Option("--skip-self", help="Leave out the hit with the query's own name.")
    ] = False
    any_model: AnyModel = False
    tsv: Annotated[bool, typer.Option("--tsv", help="Print tab-separated rows."), UNRECORDED] = (
        False
    )
    max_memory: MaxMemory = "4G"


@dataclass(frozen=True, kw_only=True)
class IndexOptions:
    """What kind of index is built."""

    type: Annotated[
        str,
        typer.Option(
            "--type",
            help="auto, flat, ivf[:lists=N], hnsw[:links=N], ivfpq[:lists=N,bytes=N] or a faiss "
            "factory text.",
        ),
    ] = "auto"
    seed: Seed = 0
    threads: Threads = None


@dataclass(frozen=True, kw_only=True)
class PlotOptions:
    """What a picture shows."""

    gallery: Annotated[
        list[str] | None,
        typer.Option(
            "--gallery",
            metavar="EMB",
            help="What a ranking ranks, if not EMB itself; one for each EMB, in their order.",
        ),
    ] = None
    part: Annotated[
        list[str] | None,
        typer.Option(
            "--part",
            metavar="all|K",
            callback=check_parts,
            help="Slice K alone, from 0; or all, each normalised; several are drawn side by side.",
        ),
    ] = None
    query: Annotated[
        list[str] | None,
        typer.Option("--query", metavar="NAME", help="A query to show; may be repeated."),
    ] = None
    worst: Annotated[
        int, typer.Option("--worst", min=1, help="Without --query: how many of the worst queries.")
    ] = 8
    k: Annotated[int, typer.Option("-k", min=1, help="Hits of each query.")] = 8
    limit: Annotated[
        int, typer.Option("--limit", min=1, help="Rows that t-SNE places, drawn by --seed.")
    ] = 5000
    seed: Seed = 0
    json: Json = False


@dataclass(frozen=True, kw_only=True)
class PositivityOptions:
    """On which batches positivity is measured, and of which loss and mixing."""

    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="FILE.png", help="The curves, drawn."),
        UNRECORDED,
    ] = None
    loss: Annotated[
        str | None,
        typer.Option(
            "--loss",
            help="See `list losses`.  [default: the model's]",
            autocompletion=complete_from("losses"),
        ),
    ] = None
    mixup: Annotated[
        str | None,
        typer.Option(
            "--mixup",
            help="See `list mixups`.  [default: the model's, or else embedding]",
            autocompletion=complete_from("mixups"),
        ),
    ] = None
    batches: Annotated[int, typer.Option("--batches", min=1, help="How many to measure on.")] = 20
    batch_size: BatchSize = 128
    classes_per_batch: ClassesPerBatch = None
    images_per_class: ImagesPerClass = None
    device: Device = "auto"
    seed: Seed = 0
    threads: Threads = None
    workers: Workers = None
    json: Json = False
