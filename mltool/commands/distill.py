"""The work of `mltool distill`: from options to a plan, and the plan carried out."""

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import cast

import numpy as np
import torch

from mltool import components, distributed
from mltool.commands import teacher_student, training_data, training_record, training_setup
from mltool.commands.objective import (
    Lesson,
    Pairing,
    build_objective,
    choose_additions,
    record_additions,
    refuse_stage,
)
from mltool.commands.training_options import TrainingOptions
from mltool.engine import training
from mltool.engine.data import BatchSource
from mltool.engine.mining import (
    MiningSettings,
    Tuples,
    TupleSampler,
    choose_tuples_per_batch,
)
from mltool.engine.objectives.objective import Objective
from mltool.engine.samplers import Neighborhoods, Sampler, Shuffled, Views
from mltool.engine.streams import MAIN, Stream
from mltool.engine.teachers import CachedTeacher, OnlineTeacher
from mltool.engine.training import TrainingPlan, Validation
from mltool.errors import SkippedInputs, UsageError
from mltool.exact.knn import Resources
from mltool.files import atomic, history
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder, count_parameters
from mltool.models.features import FeatureHooks
from mltool.options import rules
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.choices import parse_losses
from mltool.options.group import list_recorded
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.run import RunOptions
from mltool.options.teacher import TeacherOptions
from mltool.options.validation import ValidationOptions
from mltool.retrieval.neighbours import nearest

logger = logging.getLogger(__name__)

# what decides the pixels, beside the augmentation
PIXELS = ("resize", "crop", "interpolation", "keep_aspect")


def run(
    data: list[str],
    output: str,
    *,
    teacher: TeacherOptions,
    model: ModelOptions = ModelOptions(),
    objective: ObjectiveOptions = ObjectiveOptions(),
    images: ImageOptions = ImageOptions(),
    lists: ListOptions = ListOptions(),
    batches: BatchOptions = BatchOptions(),
    tuples: TupleOptions = TupleOptions(),
    optimisation: OptimisationOptions = OptimisationOptions(),
    validation: ValidationOptions = ValidationOptions(),
    execution: RunOptions = RunOptions(),
) -> None:
    """Distill on the image lists `data`; the student appears under `output` when it is finished.

    Raises UsageError for options that do not fit, SkippedInputs at the end when images were left
    out, and what `training.train` raises.
    """
    rules.check_distill(teacher, model, objective, images, batches, tuples)
    options = TrainingOptions(
        data=data,
        output=output,
        losses=parse_losses(objective.loss, with_teacher=True),
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
    with training_setup.session(options) as device:
        reasons = _distill(options, teacher, device)
    if reasons and images.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _distill(options: TrainingOptions, teaching: TeacherOptions, device: torch.device) -> list[str]:
    """Make and carry out the plan; returns why images were left out."""
    manifest = training_data.read_list(options)
    if teacher_student.needs_labels(options, teaching):
        manifest = training_data.keep_labelled(manifest, options.data, "this --loss")
    manifest, held_out = training_data.hold_out(options, manifest)
    teacher_student.refuse_weights(options, manifest)
    teacher = teacher_student.build_teacher(options, teaching, device)
    model = teacher_student.build_student(options, teaching, teacher, manifest)
    skips = options.images.on_bad_image != "error"
    if isinstance(teacher, CachedTeacher) and not skips:
        teacher.join(manifest.names)  # what is missing is known before images are decoded
    manifest, reasons = training_data.drop_unreadable(options, manifest, model)
    if isinstance(teacher, CachedTeacher) and skips:
        teacher.join(manifest.names)  # it may have left out the same ones
    plan = _plan(options, teaching, teacher, model, manifest, held_out, device)
    if options.execution.dry_run:
        size = 4 * count_parameters(model) / 1e6
        logger.info("would write %s, about %.1f MB", options.output, size)
        return []
    inputs = [teaching.teacher, teaching.teacher_weights, options.model.init]
    inputs += [options.model.weights, options.tuples.pairs, *options.data]
    atomic.refuse_inputs(options.output, inputs)
    training.train(plan, training_setup.runtime(options, device))
    return reasons


def _plan(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    held_out: Manifest | None,
    device: torch.device,
) -> TrainingPlan:
    sampler = _sampler(options, teaching, teacher, manifest, device)
    training_setup.refuse_unequal(options, model, maps=teacher_student.name_loss_on_maps(options))
    training_setup.refuse_single(options, model, sampler)
    objective = _objective(options, teaching, teacher, model, manifest, sampler)
    refuse_stage(objective, options, model)
    source = _open_source(options, teaching, teacher, model, manifest, objective.columns())
    loop = training_setup.loop_settings(options, device, model)
    validation = training_data.open_validation(options, model, device, held_out)
    plan = TrainingPlan(
        model=model,
        objective=objective,
        streams=(Stream(MAIN, source, sampler),),
        loop=loop,
        optim=training_setup.choose_rates(options, steps=sampler.steps),
        ema=options.optimisation.ema,
        pretrained=options.is_pretrained,
        validation=validation,
        classes=manifest.label_names,
        history=_history(
            options, teaching, teacher, model, manifest, validation, sampler, loop.precision
        ),
        course=training_setup.open_course(options),
    )
    training_setup.report("distill", plan)
    return plan


def _open_source(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    columns: Sequence[str],
) -> BatchSource:
    """Open the student's data: of a teacher with several views the very pixels that it saw."""
    if model.spec.takes_vectors:
        teacher_student.refuse_views(teaching, teacher)
    if not isinstance(teacher, CachedTeacher) or teacher.augmentation is None:
        return training_data.open_training(options, model, manifest, columns)
    seen, seed = teacher.augmentation
    text = training_data.augmentation(options, model.spec)
    if components.parse("augmentations", text).text != seen:
        raise UsageError(
            f"{teaching.teacher} was embedded with --augment {seen}; say the same here, so "
            "that student and teacher see the same pixels"
        )
    _check_views(teaching, teacher, model)
    return training_data.open_training(
        options, model, manifest, columns, seed=seed, distinct_draws=teacher.views
    )


def _check_views(teaching: TeacherOptions, teacher: CachedTeacher, model: Embedder) -> None:
    """Raise UsageError where a student would not see the views of a file, or see one twice."""
    if teaching.views > teacher.views:
        raise UsageError(
            f"{teaching.teacher} holds {teacher.views} views of each image, so --views "
            f"{teaching.views} would show some twice; embed more of them, or lower --views"
        )
    student = json.loads(model.spec.preprocess)
    differing = [key for key in PIXELS if student.get(key) != teacher.preprocess.get(key)]
    if differing:
        seen = ", ".join(f"{key} {teacher.preprocess.get(key)}" for key in differing)
        raise UsageError(
            f"{teaching.teacher} was embedded with {seen}, but the student has "
            f"{', '.join(str(student.get(k)) for k in differing)}; choose the same --image-size "
            "and --resize in both, so that student and teacher see the same pixels"
        )


def _sampler(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
    device: torch.device,
) -> Sampler:
    """Build tuples, neighbourhoods, P x K where classes count, else random batches."""
    ranks = distributed.world()
    total = options.batches.batch_size * ranks
    if options.mining is not None:
        return _tuple_sampler(options, teaching, teacher, manifest, options.mining)
    single = total // teaching.views // ranks * ranks
    if not single:
        raise UsageError(
            f"a batch (-b) of {total} images does not hold --views {teaching.views} of one for "
            f"each of {ranks} processes; raise --batch-size or lower --views"
        )
    sampler: Sampler
    if teaching.neighbors is not None:
        assert isinstance(teacher, CachedTeacher)
        search_device = str(device) if device.type == "cuda" else "cpu"  # a search knows no other
        resources = Resources(device=search_device, threads=options.execution.threads)
        search = partial(nearest_rows, teacher, manifest, resources=resources)
        sampler = _neighborhood_sampler(options, teaching.neighbors, search, manifest, size=single)
    elif (
        teacher_student.needs_labels(options, teaching)
        or options.batches.classes_per_batch
        or options.batches.images_per_class
    ):
        size = max(1, options.batches.batch_size // teaching.views)
        each = dataclasses.replace(options.batches, batch_size=size)
        sampler = training_setup.class_balanced(
            dataclasses.replace(options, batches=each), manifest
        )
        if unknown := int((manifest.labels < 0).sum()):
            logger.warning("%d images without a label are in no batch of classes", unknown)
    else:
        sampler = Shuffled(len(manifest), size=single, seed=options.execution.seed, processes=ranks)
    return Views(sampler, teaching.views) if teaching.views > 1 else sampler


def _neighborhood_sampler(
    options: TrainingOptions,
    neighbors: int,
    search: Callable[..., np.ndarray],
    manifest: Manifest,
    *,
    size: int,
) -> Neighborhoods:
    return Neighborhoods(
        len(manifest),
        partial(search, k=neighbors - 1),
        each=neighbors,
        size=size,
        seed=options.execution.seed,
        processes=distributed.world(),
    )


def _tuple_sampler(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
    settings: MiningSettings,
) -> TupleSampler:
    assert isinstance(teacher, CachedTeacher)
    tuples = Tuples(manifest.labels, settings, seed=options.execution.seed, pairs=manifest.pairs)
    ranks, full = distributed.world(), teaching.symmetric
    count = choose_tuples_per_batch(
        tuples, size=options.batches.batch_size * ranks, full_tuples=full, processes=ranks
    )
    return TupleSampler(tuples, per_batch=count, full_tuples=full, teacher=teacher, symmetric=full)


def nearest_rows(
    teacher: CachedTeacher, manifest: Manifest, *, k: int, resources: Resources
) -> np.ndarray:
    """Return rows [N, k] of the images nearest to each one, by the teacher's vectors."""
    logger.info("looking for the %d nearest images of each of %d", k, len(manifest))
    vectors = cast(np.ndarray, teacher.map_vectors())
    embeddings = Embeddings(manifest.names, vectors, metric=teacher.metric)
    return nearest(embeddings, None, k=k, keep_self=False, resources=resources).rows


def _objective(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    sampler: Sampler,
) -> Objective:
    depth = rules.count_stages(teaching, options.losses)
    lesson = Lesson(
        teacher,
        student_hooks=FeatureHooks(model, depth) if depth is not None else None,
        context={
            "student_dim": model.spec.dim,
            "teacher_dim": teacher.dim,
            "images": len(manifest),
        },
    )
    size = None
    if isinstance(sampler, TupleSampler):
        size = 2 + sampler.tuples.settings.negatives
    return build_objective(
        options.losses,
        Pairing(teaching.positives, teaching.symmetric, size),
        choose_additions(options.objective, epoch_steps=sampler.steps),
        model=model,
        classes=len(manifest.label_names),
        seed=options.execution.seed,
        lesson=lesson,
    )


def _history(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    validation: Validation | None,
    sampler: Sampler,
    precision: str,
) -> history.History:
    settings = list_recorded(teaching) | {"normalize": model.spec.normalize, "precision": precision}
    if depth := rules.count_stages(teaching, options.losses):
        settings["stages"] = depth
    settings |= record_additions(options.objective, epoch_steps=sampler.steps)
    settings["warmup"] = options.choose_warmup(steps=sampler.steps)
    return training_record.record(
        "distill",
        options,
        model,
        manifest,
        validation,
        settings=settings | training_record.record_sizes(sampler),
        counts={},
        inputs=teacher.inputs,
        before=[teacher.history],
    )
