"""`mltool distill` as a library call: from a request to a plan, and the plan carried out."""

import dataclasses
import logging

import numpy as np
import torch

from mltool import components, distributed
from mltool.engine import comparing, matching, mining, planning, training
from mltool.engine.comparing import Compared
from mltool.engine.data import Images
from mltool.engine.listening import Listener
from mltool.engine.mining import Mining, MiningSettings, Tuples
from mltool.engine.objectives.distill import Distilled
from mltool.engine.request import DistillRequest
from mltool.engine.samplers import Neighborhoods, Sampler, Shuffled, Views
from mltool.engine.teachers import CachedTeacher, OnlineTeacher
from mltool.engine.terms import resolved
from mltool.engine.training import Plan
from mltool.engine.transferring import Transferred, is_transfer
from mltool.engine.validating import Validation
from mltool.errors import SkippedInputs, UsageError
from mltool.files import atomic, history
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder, parameters
from mltool.retrieval.search import nearest

logger = logging.getLogger(__name__)


def run(request: DistillRequest) -> None:
    """Distill as requested; the student appears under `--output` when it is finished.

    Raises SkippedInputs at the end when images were left out, and what `training.train` raises.
    """
    request.check()
    common = request.run
    with planning.session(common) as device:
        manifest = planning.images_of(common)
        if matching.needs_labels(request):
            manifest = planning.labelled(manifest, "this --loss")
        teacher = matching.teacher_of(request, device)
        model = matching.student_of(request, teacher)
        manifest, reasons = planning.readable(common, manifest, model)
        plan = _plan(request, teacher, model, manifest, device)
        if common.dry_run:
            size = 4 * parameters(model) / 1e6
            logger.info("would write %s, about %.1f MB", common.output, size)
            return
        inputs = [request.teacher, request.teacher_weights, common.init, common.weights]
        atomic.refuse_inputs(common.output, [*inputs, common.pairs, *common.data])
        training.train(plan, planning.runtime(common, device))
    if reasons and common.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _plan(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    device: torch.device,
) -> Plan:
    common = request.run
    if isinstance(teacher, CachedTeacher):
        teacher.join(manifest.names)
    images = _images(request, teacher, model, manifest)
    tuples = _tuples(request, manifest)
    sampler = _sampler(request, teacher, manifest, tuples)
    objective = _objective(request, teacher, model, manifest, tuples)
    loop = planning.loop_settings(common, device)
    held_out = planning.validation(common, model, device)
    plan = Plan(
        model=model,
        objective=objective,
        images=images,
        sampler=sampler,
        loop=loop,
        rates=planning.rates(common),
        ema=common.ema,
        pretrained=planning.is_pretrained(common),
        validation=held_out,
        classes=manifest.label_names,
        history=_history(request, teacher, model, manifest, held_out, loop.precision),
        mining=_mining(request, teacher, tuples, images, model),
    )
    planning.report("distill", plan)
    return plan


def _images(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
) -> Images:
    """The student's images: of a teacher with several views the very pixels that it saw."""
    common = request.run
    augmentation = components.load("augmentations", common.augment, size=model.spec.crop)
    seed, views = common.seed, None
    if isinstance(teacher, CachedTeacher) and teacher.augmentation is not None:
        seen, seed = teacher.augmentation
        views = teacher.views
        if components.resolved("augmentations", common.augment) != seen:
            raise UsageError(
                f"{request.teacher} was embedded with --augment {seen}; say the same here, so that "
                "student and teacher see the same pixels"
            )
    keep = common.cache == "ram"
    return Images(manifest, model.spec, augmentation, seed=seed, cache=keep, views=views)


def _tuples(request: DistillRequest, manifest: Manifest) -> Tuples | None:
    if request.mining == "none":
        return None
    settings = MiningSettings(request.mining, request.pool, request.queries, request.negatives)
    return Tuples(manifest.labels, settings, seed=request.run.seed, pairs=manifest.pairs)


def _sampler(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
    tuples: Tuples | None,
) -> Sampler:
    """Tuples, neighbourhoods, P x K where classes count, else random batches; with all views."""
    common, ranks = request.run, distributed.world()
    total = common.batch_size * ranks
    if tuples is not None:
        whole = request.symmetric
        return mining.batches(tuples, size=total, whole=whole, processes=ranks)
    single = total // request.views
    if request.neighbors is not None:
        assert isinstance(teacher, CachedTeacher)
        near = nearest_rows(teacher, manifest, k=request.neighbors - 1)
        sampler: Sampler = Neighborhoods(near, size=single, seed=common.seed, processes=ranks)
    elif matching.needs_labels(request) or common.classes_per_batch or common.images_per_class:
        each = dataclasses.replace(common, batch_size=max(1, common.batch_size // request.views))
        sampler = planning.class_balanced(each, manifest)
    else:
        sampler = Shuffled(len(manifest), size=single, seed=common.seed, processes=ranks)
    return Views(sampler, request.views) if request.views > 1 else sampler


def nearest_rows(teacher: CachedTeacher, manifest: Manifest, *, k: int) -> np.ndarray:
    """The rows [N, k] of the images nearest to each one, as the teacher sees them."""
    vectors = teacher.of_rows(np.arange(len(manifest))).numpy()
    found = Embeddings(manifest.names, vectors, metric=teacher.metric)
    rows = nearest(found, None, k=k, keep_self=False).rows
    if (rows < 0).any():
        raise UsageError(f"{len(manifest)} images do not have {k} neighbours; lower --neighbors")
    return rows


def _mining(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    tuples: Tuples | None,
    images: Images,
    model: Embedder,
) -> Mining | None:
    if tuples is None:
        return None
    assert isinstance(teacher, CachedTeacher)
    center = components.load("augmentations", "center", size=model.spec.crop)
    seen = images.seen_as(center)
    return Mining(tuples, seen, teacher=teacher, symmetric=request.symmetric)


def _objective(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    tuples: Tuples | None,
) -> Distilled:
    common = request.run
    torch.manual_seed(common.seed)
    generator = torch.Generator().manual_seed(common.seed)
    stages = matching.stages_of(request)
    student = Listener(model, stages) if stages is not None else None
    context: dict[str, object] = {
        "student_dim": model.spec.dim,
        "teacher_dim": teacher.dim,
        "images": len(manifest),
        "generator": generator,
    }
    terms = [
        Transferred(
            text,
            student=student,
            teacher=teacher.listener if isinstance(teacher, OnlineTeacher) else None,
            context=context,
        )
        if is_transfer(text)
        else Compared(
            text,
            positives=request.positives,
            symmetric=request.symmetric,
            mined=tuples is not None,
            classes=len(manifest.label_names),
            dim=model.spec.dim,
        )
        for text in common.loss
    ]
    listened = matching.is_asymmetric(request) or any(map(is_transfer, common.loss))
    return Distilled(
        terms,
        teacher=teacher if listened else None,
        mined=tuples,
        symmetric=request.symmetric,
        normalize=model.spec.normalize,
        seed=common.seed,
        generator=generator,
    )


def _history(
    request: DistillRequest,
    teacher: CachedTeacher | OnlineTeacher,
    model: Embedder,
    manifest: Manifest,
    held_out: Validation | None,
    precision: str,
) -> history.History:
    apart = {"run", "teacher", "teacher_weights"}
    if request.mining == "none":
        apart |= {"pool", "queries", "negatives"}
    settings = {key: value for key, value in vars(request).items() if key not in apart} | {
        "loss": [
            resolved("transfers", text) if is_transfer(text) else comparing.written(text)
            for text in request.run.loss
        ],
        "precision": precision,
    }
    return planning.record(
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
