"""`mltool evaluate`: how well vectors retrieve."""

from typing import Annotated, Literal

import typer

from mltool.options import Json, MaxMemory, Seed, Threads

USUAL = "precision@1,recall@10,r_precision,map@r"


def evaluate(
    queries: Annotated[
        str,
        typer.Argument(
            metavar="QUERIES",
            help="Embeddings: an .h5 file, a folder of shards or a quoted glob. Alone: all against "
            "all, or its is_query rows against its is_gallery rows.",
            show_default=False,
        ),
    ],
    gallery: Annotated[
        str | None,
        typer.Argument(metavar="GALLERY", help="Embeddings to find the queries' classes in."),
    ] = None,
    *,
    protocol: Annotated[
        Literal["revisited"] | None,
        typer.Option("--protocol", help="mAP and mP@k of revisited Oxford and Paris."),
    ] = None,
    ground_truth: Annotated[
        str | None,
        typer.Option(
            "--ground-truth", metavar="FILE", help="Its answers: gnd_NAME.pkl, or a .json of them."
        ),
    ] = None,
    distractors: Annotated[
        list[str] | None,
        typer.Option(
            "--distractors", metavar="EMB", help="Wrong rows to add to its gallery; repeatable."
        ),
    ] = None,
    metrics: Annotated[
        str,
        typer.Option(
            "--metrics",
            help="Of precision@1, recall@K, r_precision, map@r, map, mrr, nmi, ami, f1.",
        ),
    ] = USUAL,
    keep_self: Annotated[
        bool, typer.Option("--keep-self", help="Keep the gallery row with the query's own name.")
    ] = False,
    any_model: Annotated[
        bool, typer.Option("--any-model", help="Compare vectors of different models.")
    ] = False,
    bootstrap: Annotated[
        int, typer.Option("--bootstrap", metavar="N", help="95 % intervals from N resamplings.")
    ] = 0,
    seed: Seed = 0,
    per_query: Annotated[
        str | None,
        typer.Option("--per-query", metavar="FILE.csv", help="The values of each query."),
    ] = None,
    per_class: Annotated[
        str | None, typer.Option("--per-class", metavar="FILE.csv", help="Their means by class.")
    ] = None,
    run: Annotated[
        str | None,
        typer.Option("--run", metavar="FILE.run", help="The best 100 hits, for trec_eval."),
    ] = None,
    output: Annotated[
        str | None, typer.Option("-o", "--output", metavar="FILE.json", help="The report as JSON.")
    ] = None,
    json: Json = False,
    max_memory: MaxMemory = "4G",
    device: Annotated[str, typer.Option("-d", "--device", help="cpu, cuda or cuda:N.")] = "cpu",
    threads: Threads = None,
) -> None:
    """Rank a gallery for every query and print metrics and counts."""
    given = locals() | {"distractors": distractors or []}
    from mltool.commands import evaluate

    print(evaluate.run(evaluate.EvaluateRequest(**given)))
