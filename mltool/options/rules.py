"""What holds across groups of options, checked before anything heavy is imported.

What holds inside one group is declared there (`needs`, `excludes`). Every function raises
UsageError for the first thing that does not fit, with the remedy.
"""

from collections.abc import Sequence

from mltool import components
from mltool.components import Choice
from mltool.errors import UsageError
from mltool.options.additions import refuse_additions, refuse_candidates, refuse_mined
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.choices import (
    SHORT_FORMS,
    has_pairs,
    is_asymmetric,
    is_transfer,
    needs_of,
    parse_losses,
    trains_embeddings,
    uses_tuples,
)
from mltool.options.clustering import PseudolabelOptions
from mltool.options.duplicates import DedupOptions
from mltool.options.embedding import EmbedOptions
from mltool.options.heads import refuse_head_options
from mltool.options.images import ImageOptions
from mltool.options.lists import parse_block
from mltool.options.model import VECTORS, ModelOptions, SourceOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.parts import PartOptions
from mltool.options.pretext import BackboneOptions, PretextOptions, choose_views
from mltool.options.retrieval import (
    PlotOptions,
    PositivityOptions,
    ResourceOptions,
    SearchOptions,
)
from mltool.options.run import parse_size
from mltool.options.splitting import SplitOptions, parse_method
from mltool.options.teacher import DEFAULT_STAGES, TeacherOptions
from mltool.options.unlabeled import UnlabeledOptions


def check_train(
    model: ModelOptions,
    objective: ObjectiveOptions,
    images: ImageOptions,
    batches: BatchOptions,
    tuples: TupleOptions,
    unlabeled: UnlabeledOptions,
    parts: PartOptions,
    optimisation: OptimisationOptions,
) -> None:
    """Refuse options of `train` that do not fit together."""
    losses = parse_losses(objective.loss)
    if model.arch == VECTORS:
        refuse_head_options(model, objective, images, losses)
    _check_components(model, objective, images)
    _check_tuples(batches, tuples, objective)
    has_tuples = tuples.mining != "none"
    refuse_candidates(losses, positives="class", symmetric=True, has_tuples=has_tuples)
    _check_additions(losses, objective, symmetric=True)
    if unlabeled.unlabeled is not None:
        _check_unlabeled(unlabeled, objective, tuples)
    if parts.parts is not None:
        _check_parts(parts.parts, parts, model, tuples, unlabeled, optimisation)


def check_distill(
    teacher: TeacherOptions,
    model: ModelOptions,
    objective: ObjectiveOptions,
    images: ImageOptions,
    batches: BatchOptions,
    tuples: TupleOptions,
) -> None:
    """Refuse options of `distill` that do not fit together."""
    losses = parse_losses(objective.loss, with_teacher=True)
    if model.arch == VECTORS:
        refuse_head_options(model, objective, images, losses, teacher)
    _check_components(model, objective, images)
    _check_tuples(batches, tuples, objective)
    _check_chooser(teacher, batches, tuples, losses)
    _check_pairing(teacher, losses)
    refuse_candidates(
        losses,
        positives=teacher.positives,
        symmetric=teacher.symmetric,
        has_tuples=tuples.mining != "none",
    )
    _check_additions(losses, objective, symmetric=teacher.symmetric)
    count_stages(teacher, losses)
    if model.adds_projection() and not any(map(trains_embeddings, losses)):
        raise UsageError(
            "this --loss looks below the embedding, whose projection would stay random; add a "
            "loss on the embeddings, such as --loss proxy-anchor, or say --projection none"
        )
    learns = any(map(is_transfer, losses)) or is_asymmetric(losses, symmetric=teacher.symmetric)
    if not (learns or tuples.mining == "hard" or teacher.neighbors):
        raise UsageError("nothing is learned from the teacher like this; use `mltool train`")


def check_pretrain(
    pretext: PretextOptions, backbone: BackboneOptions, images: ImageOptions
) -> None:
    """Refuse options of `pretrain` that do not fit together."""
    if backbone.arch == VECTORS:
        raise UsageError("pretrain takes images, not cached vectors; name a backbone as --arch")
    choose_views(components.parse("pretexts", pretext.method), images.augment)


def check_embed(options: EmbedOptions, source: SourceOptions) -> None:
    """Refuse wrong components, and a shard that is none."""
    parse_shard(options.shard)
    components.parse("augmentations", options.augment)
    _parse_if_given("poolings", source.pooling)


def check_concat(embeddings: Sequence[str]) -> None:
    """Refuse a single text: there is nothing to join it with."""
    if len(embeddings) < 2:
        raise UsageError("concat joins the vectors of two or more models; name their files")


def check_pseudolabel(output: str, options: PseudolabelOptions) -> None:
    """Refuse a wrong component, a reference that it lacks or ignores, and an unknown ending."""
    parse_size(options.max_memory)
    needs_reference = "reference" in components.parse("clusterers", options.method).declared.needs
    if needs_reference and options.reference is None:
        raise UsageError(f"--method {options.method} needs --reference, the labelled embeddings")
    if options.reference is not None and not needs_reference:
        raise UsageError(f"--method {options.method} takes no --reference; leave it out")
    if not output.lower().endswith((".csv", ".h5")):
        raise UsageError(f"--output {output}: name an image list (.csv) or embeddings (.h5)")


def check_cluster_split(output: str, options: SplitOptions) -> None:
    """Refuse a clusterer that -k says nothing to, and an unknown ending."""
    parse_size(options.max_memory)
    parse_method(options.method)
    if not output.lower().endswith(".csv"):
        raise UsageError(f"--output {output}: name an image list (.csv)")


def check_dedup(options: DedupOptions) -> None:
    """Refuse a size that is none."""
    parse_size(options.max_memory)


def check_search(options: SearchOptions, source: SourceOptions) -> None:
    """Refuse a wrong component, and a size that is none."""
    parse_size(options.max_memory)
    _parse_if_given("poolings", source.pooling)


def check_evaluate(gallery: str | None, metrics: str) -> None:
    """Refuse to classify queries without labelled vectors to learn from."""
    learned = [name.strip() for name in metrics.split(",") if "-accuracy" in name]
    if learned and gallery is None:
        raise UsageError(
            f"{learned[0]} classifies queries by other labelled vectors; name those as GALLERY"
        )


def check_plot(kind: str, embeddings: Sequence[str], options: PlotOptions) -> None:
    """Refuse a gallery where nothing is ranked, and another number of galleries than of models."""
    galleries = len(options.gallery or ())
    if galleries and kind != "ranking":
        raise UsageError(f"plot {kind} ranks nothing; leave out --gallery")
    if galleries not in (0, len(embeddings)):
        raise UsageError(
            f"{galleries} x --gallery for {len(embeddings)} x EMB; name one for each, or none"
        )


def check_resources(resources: ResourceOptions) -> None:
    """Refuse a size that is none."""
    parse_size(resources.max_memory)


def check_positivity(options: PositivityOptions) -> None:
    """Refuse wrong components."""
    _parse_if_given("losses", options.loss)
    _check_mixup(options.mixup)
    if options.loss is not None and options.mixup is not None:
        losses = parse_losses([options.loss])
        refuse_additions(losses, miner=None, memory=None, mixup=options.mixup, symmetric=True)


def count_stages(teacher: TeacherOptions, losses: Sequence[Choice]) -> int | None:
    """Return how many feature maps are compared: 0 = the pooled features, None = vectors alone."""
    needs = needs_of(losses)
    if "maps" in needs:
        return DEFAULT_STAGES if teacher.stages is None else teacher.stages
    if teacher.stages is not None:
        raise UsageError("--stages is for transfers of feature maps: fitnet, attention")
    return 0 if "penultimate" in needs else None


def parse_shard(text: str) -> tuple[int, int]:
    """Return (I, N) of `I/N`. Raises UsageError unless 0 <= I < N."""
    return parse_block("--shard", text)


def _check_components(
    model: ModelOptions, objective: ObjectiveOptions, images: ImageOptions
) -> None:
    _parse_if_given("poolings", model.pooling)
    _parse_if_given("augmentations", images.augment)
    _parse_if_given("miners", objective.miner)
    _check_mixup(objective.mixup)


def _parse_if_given(family: str, text: str | None) -> None:
    if text is not None:
        components.parse(family, text)


def _check_mixup(text: str | None) -> None:
    if text is not None:
        components.load("mixups", text)()  # its record of settings checks them; no torch


def _check_tuples(batches: BatchOptions, tuples: TupleOptions, objective: ObjectiveOptions) -> None:
    if tuples.mining != "none":
        _refuse_batches(batches, "--mining")
        if objective.miner or objective.memory or objective.mixup:
            raise UsageError("--mining makes tuples; leave out --miner, --memory and --mixup")


def _check_additions(
    losses: Sequence[Choice], objective: ObjectiveOptions, *, symmetric: bool
) -> None:
    refuse_additions(
        losses,
        miner=objective.miner,
        memory=objective.memory,
        mixup=objective.mixup,
        symmetric=symmetric,
    )


def _check_unlabeled(
    unlabeled: UnlabeledOptions, objective: ObjectiveOptions, tuples: TupleOptions
) -> None:
    if tuples.mining != "none":
        raise UsageError("--mining makes tuples of DATA alone; leave it out beside --unlabeled")
    losses = parse_losses(unlabeled.unlabeled_loss or objective.loss)
    if unlabeled.basis is None:
        _check_additions(losses, objective, symmetric=True)
    else:
        refuse_mined(unlabeled.basis, losses)


def _check_parts(
    text: str,
    parts: PartOptions,
    model: ModelOptions,
    tuples: TupleOptions,
    unlabeled: UnlabeledOptions,
    optimisation: OptimisationOptions,
) -> None:
    choice = components.parse("parts", text)
    count = choice["count"]
    if count is None and parts.clusters is None:
        raise UsageError(
            f"--parts {text}: say how many, as in {choice.name}:count=4, or name --clusters"
        )
    if choice.name == "slices" and isinstance(count, int) and model.dim and model.dim % count:
        raise UsageError(
            f"--dim {model.dim} does not divide into {count} slices; choose another --dim or count"
        )
    for flag, is_used in (
        ("--mining", tuples.mining != "none"),
        ("--unlabeled", unlabeled.unlabeled is not None),
    ):
        if is_used:
            raise UsageError(f"{flag} trains the whole vector; leave it out beside --parts")
    if dict(choice.settings).get("lr") is not None and "masks" in optimisation.rates:
        raise UsageError("--parts and --lr-group both name a rate for masks; leave one out")


def _refuse_batches(batches: BatchOptions, chooser: str) -> None:
    """Refuse P x K where something else chooses the batches."""
    if batches.classes_per_batch or batches.images_per_class or batches.small_classes != "resample":
        raise UsageError(
            f"{chooser} chooses the batches; leave out --classes-per-batch, --images-per-class "
            "and --small-classes"
        )


def _check_chooser(
    teacher: TeacherOptions, batches: BatchOptions, tuples: TupleOptions, losses: Sequence[Choice]
) -> None:
    """Refuse two options that both choose the batches, and tuples that no loss uses."""
    if teacher.neighbors is not None:
        _refuse_batches(batches, "--neighbors")
    if tuples.mining == "none":
        return
    for option, is_chosen in (
        ("--neighbors", teacher.neighbors is not None),
        ("--views", teacher.views > 1),
    ):
        if is_chosen:
            raise UsageError(f"{option} and --mining both choose the batches; leave one out")
    if not any(uses_tuples(loss, symmetric=teacher.symmetric) for loss in losses):
        raise UsageError(
            "no --loss has a use for the negatives of --mining; add one with pairs, such as "
            "contrastive+, or leave out --mining"
        )


def _check_pairing(teacher: TeacherOptions, losses: Sequence[Choice]) -> None:
    """Refuse what says who is whose positive where nobody listens."""
    paired = [loss for loss in losses if has_pairs(loss)]
    if teacher.positives != "class" and all(loss.alias in SHORT_FORMS for loss in paired):
        raise UsageError(
            f"--positives {teacher.positives}: this --loss has its own, or none; leave it out, or "
            "use --loss contrastive"
        )
    if teacher.symmetric and all(map(is_transfer, losses)):
        raise UsageError("--symmetric says nothing to transfers; leave it out")
