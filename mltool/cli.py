"""The table of contents: every command with its arguments and groups of options.

A command says what it takes, what it is for, and which function of `mltool.commands` does it. That
function is imported when it is called, so help and usage errors import nothing heavy.
"""

from typing import Annotated, Literal

import typer

from mltool import __version__, shell
from mltool.options import rules
from mltool.options.arguments import (
    EmbeddingsByModel,
    Files,
    Gallery,
    Model,
    Queries,
    TrainedModel,
)
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.clustering import PseudolabelOptions
from mltool.options.duplicates import DedupOptions
from mltool.options.embedding import EmbedOptions
from mltool.options.images import ImageOptions
from mltool.options.lists import Data, ListOptions, Root
from mltool.options.model import ModelOptions, SourceOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.packing import PackOptions
from mltool.options.parts import PartOptions
from mltool.options.pretext import BackboneOptions, PretextOptions
from mltool.options.retrieval import (
    Database,
    EmbeddingFiles,
    EvaluateOptions,
    IndexOptions,
    PlotOptions,
    PositivityOptions,
    QueryTexts,
    ResourceOptions,
    SearchOptions,
)
from mltool.options.run import InferenceOptions, Json, Output, RunOptions
from mltool.options.splitting import SplitOptions
from mltool.options.teacher import TeacherOptions
from mltool.options.unlabeled import UnlabeledOptions
from mltool.options.validation import ValidationOptions

EPILOG = """\b
Every command reads image lists, embeddings (.h5) and models (.safetensors) and writes one file,
whole or not at all. `mltool COMMAND --help` shows its options; each may also
stand in the environment (MLTOOL_TRAIN_LR=1e-4) or in a TOML file (--config).

\b
  mltool train digits:train --arch resnet10t --image-size 32 -o model.safetensors
  mltool embed model.safetensors digits:test -o test.h5
  mltool evaluate test.h5
"""

app = shell.application(
    "mltool", "Deep metric learning and image retrieval as shell pipelines.", EPILOG, __version__
)


@shell.command(app, "Learn")
def pretrain(
    data: Data,
    output: Output,
    pretext: PretextOptions,
    backbone: BackboneOptions,
    images: ImageOptions,
    lists: ListOptions,
    optimisation: OptimisationOptions,
    execution: RunOptions,
) -> None:
    """Train a backbone on images without labels: self-supervision."""
    rules.check_pretrain(pretext, backbone, images)
    from mltool.commands import pretrain

    pretrain.run(
        data,
        output,
        pretext=pretext,
        backbone=backbone,
        images=images,
        lists=lists,
        optimisation=optimisation,
        execution=execution,
    )


@shell.command(app, "Learn")
def train(
    data: Data,
    output: Output,
    model: ModelOptions,
    objective: ObjectiveOptions,
    images: ImageOptions,
    lists: ListOptions,
    batches: BatchOptions,
    tuples: TupleOptions,
    unlabeled: UnlabeledOptions,
    parts: PartOptions,
    optimisation: OptimisationOptions,
    validation: ValidationOptions,
    execution: RunOptions,
) -> None:
    """Train an embedding on labelled images."""
    rules.check_train(model, objective, images, batches, tuples, unlabeled, parts, optimisation)
    from mltool.commands import train

    train.run(
        data,
        output,
        model=model,
        objective=objective,
        images=images,
        lists=lists,
        batches=batches,
        tuples=tuples,
        unlabeled=unlabeled,
        parts=parts,
        optimisation=optimisation,
        validation=validation,
        execution=execution,
    )


@shell.command(app, "Learn")
def distill(
    data: Data,
    output: Output,
    model: ModelOptions,
    teacher: TeacherOptions,
    objective: ObjectiveOptions,
    images: ImageOptions,
    lists: ListOptions,
    batches: BatchOptions,
    tuples: TupleOptions,
    optimisation: OptimisationOptions,
    validation: ValidationOptions,
    execution: RunOptions,
) -> None:
    """Train a student that embeds as its teacher does."""
    rules.check_distill(teacher, model, objective, images, batches, tuples)
    from mltool.commands import distill

    distill.run(
        data,
        output,
        teacher=teacher,
        model=model,
        objective=objective,
        images=images,
        lists=lists,
        batches=batches,
        tuples=tuples,
        optimisation=optimisation,
        validation=validation,
        execution=execution,
    )


@shell.command(app, "Search")
def embed(
    model: Model,
    data: Data,
    output: Output,
    options: EmbedOptions,
    source: SourceOptions,
    lists: ListOptions,
    execution: InferenceOptions,
) -> None:
    """Embed images with a model, or vectors with a head; one file of vectors, names and labels."""
    rules.check_embed(options, source)
    from mltool.commands import embed

    embed.run(model, data, output, options=options, source=source, lists=lists, execution=execution)


@shell.command(app, "Learn")
def pseudolabel(
    embeddings: EmbeddingFiles,
    output: Output,
    options: PseudolabelOptions,
) -> None:
    """Cluster embeddings into pseudo-labels: an image list (.csv), or with the vectors (.h5).

    Prints the sizes of the clusters, what was left out, and how well they agree with the labels of
    the embeddings, if these have any.
    """
    rules.check_pseudolabel(output, options)
    from mltool.commands import pseudolabel

    pseudolabel.run(embeddings, output, options=options)


@shell.command(app, "Learn", "cluster-split")
def cluster_split(
    embeddings: EmbeddingFiles,
    output: Output,
    options: SplitOptions,
) -> None:
    """Divide training images into clusters, one for each learner of `train --clusters`.

    Clusters with too few classes are merged, images alone in their class are set aside. Prints what
    each cluster holds.
    """
    rules.check_cluster_split(output, options)
    from mltool.commands import cluster_split

    cluster_split.run(embeddings, output, options=options)


@shell.command(app, "Search")
def index(
    embeddings: EmbeddingFiles,
    output: Output,
    options: IndexOptions,
) -> None:
    """Index vectors for approximate search; its recall is measured and stored.

    Exact search (`mltool search` in embeddings) needs no index.
    """
    from mltool.commands import index

    index.run(embeddings, output, options=options)


@shell.command(app, "Search")
def concat(
    embeddings: EmbeddingsByModel,
    output: Output,
) -> None:
    """Join the vectors of several models, image by image.

    Each vector is normalised, all of an image are put side by side and normalised again.
    """
    rules.check_concat(embeddings)
    from mltool.commands import concat

    concat.run(embeddings, output)


@shell.command(app, "Search")
def search(
    db: Database,
    queries: QueryTexts,
    model: Annotated[
        str | None,
        typer.Option(
            "--model", metavar="MODEL", help="The model that made DB; QUERIES are images then."
        ),
    ] = None,
    root: Root = None,
    *,
    options: SearchOptions,
    source: SourceOptions,
    execution: InferenceOptions,
) -> None:
    """Print the nearest rows of DB for each query: a table on a terminal, else TSV."""
    rules.check_search(options, source)
    from mltool.commands import search

    search.run(
        db, queries, model=model, root=root, options=options, source=source, execution=execution
    )


@shell.command(app, "Search")
def evaluate(
    queries: Queries,
    gallery: Gallery = None,
    *,
    options: EvaluateOptions,
    resources: ResourceOptions,
) -> None:
    """Rank a gallery for every query and print metrics and counts."""
    rules.check_resources(resources)
    rules.check_evaluate(gallery, options.metrics)
    from mltool.commands import evaluate

    evaluate.run(queries, gallery, options=options, resources=resources)


@shell.command(app, "Search")
def positivity(
    model: TrainedModel,
    data: Data,
    options: PositivityOptions,
    lists: ListOptions,
) -> None:
    """Measure how often mixed examples act as positives, by lambda."""
    rules.check_positivity(options)
    from mltool.commands import positivity

    positivity.run(model, data, options=options, lists=lists)


@shell.command(app, "Search")
def plot(
    kind: Annotated[
        Literal["ranking", "tsne"],
        typer.Argument(
            metavar="ranking|tsne",
            help="ranking: queries and their nearest images, right ones green, wrong ones red. "
            "tsne: all vectors in the plane, coloured by class.",
            show_default=False,
        ),
    ],
    embeddings: EmbeddingsByModel,
    output: Output,
    options: PlotOptions,
) -> None:
    """Draw a PNG from embeddings, of several side by side; needs the extra `plot` (matplotlib).

    Of several rankings it prints how many of their ten nearest images every two share.
    """
    rules.check_plot(kind, embeddings, options)
    from mltool.commands import plot

    plot.run(kind, embeddings, output, options=options)


@shell.command(app, "Files")
def info(
    files: Files,
    history: Annotated[
        bool, typer.Option("--history", help="The shell lines that made it, oldest first.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what files hold; with --history, the commands that made them."""
    from mltool.commands import info

    info.run(files, history=history, json=json, groups=shell.groups_of(app))


@shell.command(app, "Files")
def verify(
    files: Files,
    full: Annotated[
        bool, typer.Option("--full", help="Compare every byte with the digests; else the frame.")
    ] = False,
) -> None:
    """Check files written by mltool; the exit status is the answer."""
    from mltool.commands import verify

    verify.run(files, full=full)


@shell.command(app, "Files")
def pack(data: Data, output: Output, options: PackOptions, lists: ListOptions) -> None:
    """Pack images into one .h5 file, for file systems that hate many small files."""
    from mltool.commands import pack

    pack.run(data, output, options=options, lists=lists)


@shell.command(app, "Files")
def dedup(data: Data, output: Output, options: DedupOptions, lists: ListOptions) -> None:
    """Find near duplicates among images or vectors: a CSV of pairs, each once, with their group."""
    rules.check_dedup(options)
    from mltool.commands import dedup

    dedup.run(data, output, options=options, lists=lists)


@shell.command(app, "Help", "list")
def list_components(
    family: Annotated[
        str | None, typer.Argument(help="losses, miners, poolings, ...; without: the families.")
    ] = None,
    json: Json = False,
) -> None:
    """List components with formula, settings and paper."""
    from mltool.commands import list as command

    command.run(family, json=json)


def main() -> None:
    """Run the program; the entry point of the console script."""
    app(prog_name="mltool")
