"""The work of `mltool train`: from options to a plan, and the plan carried out."""

import logging
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Protocol

import torch

from mltool import distributed
from mltool.commands import training_data, training_record, training_setup
from mltool.commands import unlabeled as unlabeled_images
from mltool.commands.learners import Learners, add_clusters, choose_parts
from mltool.commands.objective import (
    Additions,
    Pairing,
    build_objective,
    choose_additions,
    record_additions,
    refuse_stage,
)
from mltool.commands.training_options import TrainingOptions
from mltool.commands.unlabeled import SecondStream
from mltool.components import Choice
from mltool.engine import training
from mltool.engine.loop import Run
from mltool.engine.mining import (
    MiningSettings,
    Tuples,
    TupleSampler,
    choose_tuples_per_batch,
)
from mltool.engine.objectives.objective import Objective
from mltool.engine.samplers import Sampler
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan, Validation
from mltool.errors import SkippedInputs
from mltool.files import atomic, history
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder, count_parameters
from mltool.options import rules
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.choices import parse_losses
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.parts import PartOptions
from mltool.options.run import RunOptions
from mltool.options.unlabeled import UnlabeledOptions
from mltool.options.validation import ValidationOptions

logger = logging.getLogger(__name__)


class Extension(Protocol):
    """What --unlabeled or --parts adds to a run."""

    @property
    def rates(self) -> Mapping[str, float]:
        """Rates of groups of parameters."""
        ...

    def adapt(self, run: Run) -> None:
        """Change what the run begins with."""
        ...

    def open_streams(self, model: Embedder, objective: Objective) -> list[Stream]:
        """Open the streams besides the main one."""
        ...

    def report(self) -> None:
        """Log what is added."""
        ...

    def record_settings(self) -> dict[str, object]:
        """Return what the record of the run says of it."""
        ...

    def record_counts(self) -> dict[str, int]:
        """Return what the record counts of it."""
        ...

    def list_inputs(self) -> list[tuple[str, str, str]]:
        """Return the lists that are read, as inputs of a record."""
        ...

    def read_histories(self) -> list[history.History]:
        """Return the histories of these lists."""
        ...


def run(
    data: list[str],
    output: str,
    *,
    model: ModelOptions = ModelOptions(),
    objective: ObjectiveOptions = ObjectiveOptions(),
    images: ImageOptions = ImageOptions(),
    lists: ListOptions = ListOptions(),
    batches: BatchOptions = BatchOptions(),
    tuples: TupleOptions = TupleOptions(),
    unlabeled: UnlabeledOptions = UnlabeledOptions(),
    parts: PartOptions = PartOptions(),
    optimisation: OptimisationOptions = OptimisationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    execution: RunOptions = RunOptions(),
) -> None:
    """Train on the image lists `data`; the model appears under `output` when it is finished.

    Raises UsageError for options that do not fit, SkippedInputs at the end when images were left
    out, and what `training.train` raises.
    """
    rules.check_train(model, objective, images, batches, tuples, unlabeled, parts, optimisation)
    options = TrainingOptions(
        data=data,
        output=output,
        losses=parse_losses(objective.loss),
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
    with training_setup.session(options) as device:
        reasons = _train(options, device)
    if reasons and images.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _train(options: TrainingOptions, device: torch.device) -> list[str]:
    """Make and carry out the plan; returns why images were left out."""
    manifest = training_data.read_list(options)
    manifest = training_data.keep_labelled(manifest, options.data, "train")
    pseudo = unlabeled_images.read_list(options, manifest)
    manifest, held_out = training_data.hold_out(options, manifest)
    manifest = add_clusters(options, manifest)
    division = choose_parts(options, manifest)
    model = training_setup.build_model(
        options, manifest, parts=division.text if division is not None else None
    )
    manifest, reasons = training_data.drop_unreadable(options, manifest, model)
    if pseudo is not None:
        pseudo, further = training_data.drop_unreadable(options, pseudo, model)
        reasons = reasons + further
    plan = _plan(options, model, manifest, held_out, pseudo, division, device)
    if options.execution.dry_run:
        size = 4 * count_parameters(model) / 1e6
        logger.info("would write %s, about %.1f MB", options.output, size)
        return []
    inputs = [options.model.init, options.model.weights, options.tuples.pairs, *options.data]
    inputs += [*(options.unlabeled.unlabeled or []), options.unlabeled.unlabeled_labels]
    inputs += [options.parts.clusters]
    atomic.refuse_inputs(options.output, inputs)
    training.train(plan, training_setup.runtime(options, device))
    return reasons


def _plan(
    options: TrainingOptions,
    model: Embedder,
    manifest: Manifest,
    held_out: Manifest | None,
    pseudo: Manifest | None,
    division: Choice | None,
    device: torch.device,
) -> TrainingPlan:
    sampler: Sampler
    extension: Extension | None = None
    if options.mining is not None:
        sampler, objective = _build_mined(options, options.mining, model, manifest)
    elif division is not None:
        sampler, objective, extension = _build_divided(options, division, model, manifest)
    else:
        sampler, objective, extension = _build_balanced(options, model, manifest, pseudo)
    source = training_data.open_training(options, model, manifest, objective.columns())
    streams = [Stream(MAIN, source, sampler)]
    rates = training_setup.choose_rates(options, steps=sampler.steps)
    course = training_setup.open_course(options)
    if extension is not None:
        course = replace(course, adapt=extension.adapt)
        streams += extension.open_streams(model, objective)
        rates = replace(rates, lr_groups={**rates.lr_groups, **extension.rates})
    loop = training_setup.loop_settings(options, device, model)
    validation = training_data.open_validation(options, model, device, held_out)
    plan = TrainingPlan(
        model=model,
        objective=objective,
        streams=tuple(streams),
        loop=loop,
        optim=rates,
        ema=options.optimisation.ema,
        pretrained=options.is_pretrained,
        validation=validation,
        classes=manifest.label_names,
        history=_history(options, model, manifest, validation, sampler, extension, loop.precision),
        course=course,
    )
    training_setup.report("train", plan)
    if extension is not None:
        extension.report()
    return plan


def _build_balanced(
    options: TrainingOptions, model: Embedder, manifest: Manifest, pseudo: Manifest | None
) -> tuple[Sampler, Objective, Extension | None]:
    """Build P x K batches, compared within, and their objective."""
    sampler = training_setup.class_balanced(options, manifest)
    classes, second, further = len(manifest.label_names), None, None
    if pseudo is not None:
        second = SecondStream(options, pseudo, first=sampler)
        further = partial(second.list_terms, classes=classes, dim=model.spec.dim)
    objective = build_objective(
        options.losses,
        Pairing(),
        choose_additions(options.objective, epoch_steps=sampler.steps),
        model=model,
        classes=classes,
        seed=options.execution.seed,
        further=further,
    )
    _refuse_misfits(objective, options, model, sampler)
    return sampler, objective, second


def _build_divided(
    options: TrainingOptions, division: Choice, model: Embedder, manifest: Manifest
) -> tuple[Sampler, Objective, Extension | None]:
    """Build batches inside one cluster, and the objective of all learners."""
    every = training_setup.class_balanced(options, manifest)
    learners = Learners(options, division, manifest, model, every=every)
    objective = build_objective(
        [],
        Pairing(),
        Additions(),
        model=model,
        classes=len(manifest.label_names),
        seed=options.execution.seed,
        further=learners.list_terms,
    )
    _refuse_misfits(objective, options, model, every)
    return learners.sampler, objective, learners


def _refuse_misfits(
    objective: Objective, options: TrainingOptions, model: Embedder, sampler: Sampler
) -> None:
    """Raise UsageError for P x K batches that the model or the objective cannot take."""
    refuse_stage(objective, options, model)
    training_setup.refuse_unequal(options, model, maps=None)
    training_setup.refuse_single(options, model, sampler)


def _build_mined(
    options: TrainingOptions, settings: MiningSettings, model: Embedder, manifest: Manifest
) -> tuple[TupleSampler, Objective]:
    """Build batches of tuples mined by the model itself, and their objective."""
    training_setup.refuse_unequal(options, model, maps=None)
    seed, ranks = options.execution.seed, distributed.world()
    tuples = Tuples(manifest.labels, settings, seed=seed, pairs=manifest.pairs)
    count = choose_tuples_per_batch(
        tuples, size=options.batches.batch_size * ranks, full_tuples=True, processes=ranks
    )
    sampler = TupleSampler(tuples, per_batch=count, full_tuples=True)
    training_setup.refuse_single(options, model, sampler)
    objective = build_objective(
        options.losses,
        Pairing(images_per_tuple=sampler.images_per_tuple),
        choose_additions(options.objective, epoch_steps=sampler.steps),
        model=model,
        classes=len(manifest.label_names),
        seed=seed,
    )
    return sampler, objective


def _history(
    options: TrainingOptions,
    model: Embedder,
    manifest: Manifest,
    validation: Validation | None,
    sampler: Sampler,
    extension: Extension | None,
    precision: str,
) -> history.History:
    settings = record_additions(options.objective, epoch_steps=sampler.steps)
    settings |= {"warmup": options.choose_warmup(steps=sampler.steps), "precision": precision}
    counts = {"classes": len(manifest.label_names)}
    if extension is not None:
        settings |= extension.record_settings()
        counts |= extension.record_counts()
    return training_record.record(
        "train",
        options,
        model,
        manifest,
        validation,
        settings=settings | training_record.record_sizes(sampler),
        counts=counts,
        inputs=extension.list_inputs() if extension is not None else (),
        before=extension.read_histories() if extension is not None else (),
    )
