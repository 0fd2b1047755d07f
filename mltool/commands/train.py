"""The work of `mltool train`: from options to a plan, and the plan carried out."""

import logging
from functools import partial

import torch

from mltool import distributed
from mltool.commands import training_data, training_record, training_setup
from mltool.commands import unlabeled as unlabeled_images
from mltool.commands.objective import (
    Pairing,
    build_objective,
    choose_additions,
    record_additions,
    refuse_stage,
)
from mltool.commands.training_options import TrainingOptions
from mltool.commands.unlabeled import SecondStream
from mltool.engine import training
from mltool.engine.mining import (
    MiningSettings,
    Tuples,
    TupleSampler,
    choose_tuples_per_batch,
)
from mltool.engine.objectives.objective import Objective
from mltool.engine.samplers import ClassBalanced, Sampler
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
from mltool.options.run import RunOptions
from mltool.options.unlabeled import UnlabeledOptions
from mltool.options.validation import ValidationOptions

logger = logging.getLogger(__name__)


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
    optimisation: OptimisationOptions = OptimisationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    execution: RunOptions = RunOptions(),
) -> None:
    """Train on the image lists `data`; the model appears under `output` when it is finished.

    Raises UsageError for options that do not fit, SkippedInputs at the end when images were left
    out, and what `training.train` raises.
    """
    rules.check_train(model, objective, images, batches, tuples, unlabeled)
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
    model = training_setup.build_model(options, manifest)
    manifest, reasons = training_data.drop_unreadable(options, manifest, model)
    if pseudo is not None:
        pseudo, further = training_data.drop_unreadable(options, pseudo, model)
        reasons = reasons + further
    plan = _plan(options, model, manifest, held_out, pseudo, device)
    if options.execution.dry_run:
        size = 4 * count_parameters(model) / 1e6
        logger.info("would write %s, about %.1f MB", options.output, size)
        return []
    inputs = [options.model.init, options.model.weights, options.tuples.pairs, *options.data]
    inputs += [*(options.unlabeled.unlabeled or []), options.unlabeled.unlabeled_labels]
    atomic.refuse_inputs(options.output, inputs)
    training.train(plan, training_setup.runtime(options, device))
    return reasons


def _plan(
    options: TrainingOptions,
    model: Embedder,
    manifest: Manifest,
    held_out: Manifest | None,
    pseudo: Manifest | None,
    device: torch.device,
) -> TrainingPlan:
    sampler: Sampler
    settings, second = options.mining, None
    if settings is not None:
        sampler, objective = _build_mined(options, settings, model, manifest)
    else:
        sampler = training_setup.class_balanced(options, manifest)
        if pseudo is not None:
            second = SecondStream(options, pseudo, first=sampler)
        objective = _build_balanced(options, sampler, second, model, manifest)
    source = training_data.open_training(options, model, manifest, objective.columns())
    streams = [Stream(MAIN, source, sampler)]
    if second is not None:
        streams.append(second.open(model, objective))
    loop = training_setup.loop_settings(options, device, model)
    validation = training_data.open_validation(options, model, device, held_out)
    plan = TrainingPlan(
        model=model,
        objective=objective,
        streams=tuple(streams),
        loop=loop,
        optim=training_setup.choose_rates(options),
        ema=options.optimisation.ema,
        pretrained=options.is_pretrained,
        validation=validation,
        classes=manifest.label_names,
        history=_history(options, model, manifest, validation, sampler, second, loop.precision),
        course=training_setup.open_course(options),
    )
    training_setup.report("train", plan)
    if second is not None:
        second.report()
    return plan


def _build_balanced(
    options: TrainingOptions,
    sampler: ClassBalanced,
    second: SecondStream | None,
    model: Embedder,
    manifest: Manifest,
) -> Objective:
    """Build the objective of P x K batches, compared within."""
    classes = len(manifest.label_names)
    further = None
    if second is not None:
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
    refuse_stage(objective, options, model)
    training_setup.refuse_unequal(options, model, maps=None)
    training_setup.refuse_single(options, model, sampler)
    return objective


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
    second: SecondStream | None,
    precision: str,
) -> history.History:
    settings = record_additions(options.objective, epoch_steps=sampler.steps)
    counts = {"classes": len(manifest.label_names)}
    if second is not None:
        settings |= second.record_settings()
        counts |= second.record_counts()
    return training_record.record(
        "train",
        options,
        model,
        manifest,
        validation,
        settings=settings | training_record.record_sizes(sampler) | {"precision": precision},
        counts=counts,
        inputs=second.list_inputs() if second is not None else (),
        before=second.read_histories() if second is not None else (),
    )
