"""`mltool distill` as a library call: from a request to a plan, and the plan carried out."""

import dataclasses
import json
import logging
from functools import partial
from typing import cast

import numpy as np
import torch

from mltool import components, distributed
from mltool.commands import teacher_student, training_setup
from mltool.commands.objective import Additions, Lesson, Pairing, build_objective
from mltool.commands.request import DistillRequest
from mltool.engine import training
from mltool.engine.data import Images
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
from mltool.options.choices import parse_loss
from mltool.retrieval.neighbours import nearest

logger = logging.getLogger(__name__)

# what decides the pixels, beside the augmentation
PIXELS = ("resize", "crop", "interpolation", "keep_aspect")


def run(request: DistillRequest) -> None:
    """Distill as requested; the student appears under `--output` when it is finished.

    Raises SkippedInputs at the end when images were left out, and what `training.train` raises.
    """
    request.check()
    common = request.run
    with training_setup.session(common) as device:
        manifest = training_setup.images_of(common)
        if teacher_student.needs_labels(request):
            manifest = training_setup.labelled(manifest, common.data, "this --loss")
        teacher_student.refuse_weights(request, manifest)
        teacher = teacher_student.teacher_of(request, device)
        model = teacher_student.student_of(request, teacher)
        if isinstance(teacher, CachedTeacher) and common.on_bad_image == "error":
            teacher.join(manifest.names)  # what is missing is known before images are decoded
        manifest, reasons = training_setup.readable(common, manifest, model)
        if isinstance(teacher, CachedTeacher) and common.on_bad_image != "error":
            teacher.join(manifest.names)  # it may have left out the same ones
        plan = _plan(request, teacher, model, manifest, device)
        if common.dry_run:
            size = 4 * count_parameters(model) / 1e6
            logger.info("would write %s, about %.1f MB", common.output, size)
            return
        inputs = [request.teacher, request.teacher_weights, common.init, common.weights]
        atomic.refuse_inputs(common.output, [*inputs, common.pairs, *common.data])
        training.train(plan, training_setup.runtime(common, device))
    if reasons and common.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _plan(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    device: torch.device,
) -> TrainingPlan:
    common = request.run
    images = _images(request, teacher, model, manifest)
    sampler = _sampler(request, teacher, manifest, device)
    training_setup.refuse_unequal(common, model, maps=teacher_student.of_maps(request))
    training_setup.refuse_single(common, model, sampler)
    objective = _objective(request, teacher, model, manifest, sampler)
    loop = training_setup.loop_settings(common, device)
    held_out = training_setup.validation(common, model, device)
    plan = TrainingPlan(
        model=model,
        objective=objective,
        streams=(Stream(MAIN, images, sampler),),
        loop=loop,
        optim=training_setup.rates(common),
        ema=common.ema,
        pretrained=training_setup.is_pretrained(common),
        validation=held_out,
        classes=manifest.label_names,
        history=_history(request, teacher, model, manifest, held_out, loop.precision),
    )
    training_setup.report("distill", plan)
    return plan


def _images(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
) -> Images:
    """The student's images: of a teacher with several views the very pixels that it saw."""
    common = request.run
    text = training_setup.augmentation(common, model.spec)
    augmentation = components.load("augmentations", text, size=model.spec.crop)
    seed, views = common.seed, None
    if isinstance(teacher, CachedTeacher) and teacher.augmentation is not None:
        seen, seed = teacher.augmentation
        views = teacher.views
        if components.parse("augmentations", text).text != seen:
            raise UsageError(
                f"{request.teacher} was embedded with --augment {seen}; say the same here, so that "
                "student and teacher see the same pixels"
            )
        _check_views(request, teacher, model)
    keep = common.cache == "ram"
    return Images(manifest, model.spec, augmentation, seed=seed, cache=keep, views=views)


def _check_views(request: DistillRequest, teacher: CachedTeacher, model: Embedder) -> None:
    """Raise UsageError where a student would not see the views of a file, or see one twice."""
    if request.views > teacher.views:
        raise UsageError(
            f"{request.teacher} holds {teacher.views} views of each image, so --views "
            f"{request.views} would show some twice; embed more of them, or lower --views"
        )
    own = json.loads(model.spec.preprocess)
    differing = [key for key in PIXELS if own.get(key) != teacher.preprocess.get(key)]
    if differing:
        seen = ", ".join(f"{key} {teacher.preprocess.get(key)}" for key in differing)
        raise UsageError(
            f"{request.teacher} was embedded with {seen}, but the student has "
            f"{', '.join(str(own.get(key)) for key in differing)}; choose the same --image-size "
            "and --resize in both, so that student and teacher see the same pixels"
        )


def _sampler(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
    device: torch.device,
) -> Sampler:
    """Tuples, neighbourhoods, P x K where classes count, else random batches; with all views."""
    common, ranks = request.run, distributed.world()
    total = common.batch_size * ranks
    if (settings := request.tuples.settings()) is not None:
        return _tuple_sampler(request, teacher, manifest, settings)
    single = total // request.views // ranks * ranks
    if not single:
        raise UsageError(
            f"a batch (-b) of {total} images does not hold --views {request.views} of one for each "
            f"of {ranks} processes; raise --batch-size or lower --views"
        )
    if request.neighbors is not None:
        assert isinstance(teacher, CachedTeacher)
        known = str(device) if device.type == "cuda" else "cpu"  # a search knows no other
        resources = Resources(device=known, threads=common.threads)
        sampler: Sampler = Neighborhoods(
            len(manifest),
            partial(nearest_rows, teacher, manifest, k=request.neighbors - 1, resources=resources),
            each=request.neighbors,
            size=single,
            seed=common.seed,
            processes=ranks,
        )
    elif (
        teacher_student.needs_labels(request) or common.classes_per_batch or common.images_per_class
    ):
        each = dataclasses.replace(common, batch_size=max(1, common.batch_size // request.views))
        sampler = training_setup.class_balanced(each, manifest)
        if unknown := int((manifest.labels < 0).sum()):
            logger.warning("%d images without a label are in no batch of classes", unknown)
    else:
        sampler = Shuffled(len(manifest), size=single, seed=common.seed, processes=ranks)
    return Views(sampler, request.views) if request.views > 1 else sampler


def _tuple_sampler(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
    settings: MiningSettings,
) -> TupleSampler:
    assert isinstance(teacher, CachedTeacher)
    tuples = Tuples(manifest.labels, settings, seed=request.run.seed, pairs=manifest.pairs)
    ranks, full = distributed.world(), request.symmetric
    count = choose_tuples_per_batch(
        tuples, size=request.run.batch_size * ranks, full_tuples=full, processes=ranks
    )
    return TupleSampler(tuples, per_batch=count, full_tuples=full, teacher=teacher, symmetric=full)


def nearest_rows(
    teacher: CachedTeacher, manifest: Manifest, *, k: int, resources: Resources
) -> np.ndarray:
    """The rows [N, k] of the images nearest to each one, as the teacher sees them."""
    logger.info("looking for the %d nearest images of each of %d", k, len(manifest))
    vectors = cast(np.ndarray, teacher.stored_rows())
    found = Embeddings(manifest.names, vectors, metric=teacher.metric)
    return nearest(found, None, k=k, keep_self=False, resources=resources).rows


def _objective(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    sampler: Sampler,
) -> Objective:
    depth = teacher_student.stages_of(request)
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
        [parse_loss(text, with_teacher=True) for text in request.run.loss],
        Pairing(request.positives, request.symmetric, size),
        Additions(),
        model=model,
        classes=len(manifest.label_names),
        seed=request.run.seed,
        lesson=lesson,
    )


def _history(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    held_out: Validation | None,
    precision: str,
) -> history.History:
    apart = {"run", "tuples", "teacher", "teacher_weights"}
    settings = {key: value for key, value in vars(request).items() if key not in apart} | {
        **request.tuples.recorded(),
        "loss": [parse_loss(text, with_teacher=True).text for text in request.run.loss],
        "precision": precision,
    }
    return training_setup.record(
        "distill",
        request.run,
        model,
        manifest,
        held_out,
        settings=settings,
        counts={},
        inputs=teacher.inputs,
        before=[teacher.history],
    )
