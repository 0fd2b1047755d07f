"""`mltool train` as a library call: from a request to a plan, and the plan carried out."""

import logging

import torch
from torch import nn

from mltool import components, distributed
from mltool.commands import training_setup
from mltool.commands.request import TrainRequest
from mltool.engine import mining, training
from mltool.engine.data import Images, plain_view
from mltool.engine.mining import Mining, MiningSettings, TupleBatches, Tuples
from mltool.engine.objectives import objective as objectives
from mltool.engine.objectives.distill import Distilled
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.teacher_pairs import TeacherPairLoss
from mltool.engine.samplers import ClassBalanced, Sampler
from mltool.engine.training import Plan, Validation
from mltool.errors import SkippedInputs
from mltool.files import atomic, history
from mltool.files.manifest import Manifest
from mltool.models import stages
from mltool.models.embedder import Embedder, count_parameters

logger = logging.getLogger(__name__)


def run(request: TrainRequest) -> None:
    """Train as requested; the model appears under `--output` when it is finished.

    Raises SkippedInputs at the end when images were left out, and what `training.train` raises.
    """
    request.check()
    common = request.run
    with training_setup.session(common) as device:
        manifest = training_setup.labelled(training_setup.images_of(common), common.data, "train")
        model = training_setup.build_model(common)
        manifest, reasons = training_setup.readable(common, manifest, model)
        plan = _plan(request, model, manifest, device)
        if common.dry_run:
            size = 4 * count_parameters(model) / 1e6
            logger.info("would write %s, about %.1f MB", common.output, size)
            return
        inputs = [common.init, common.weights, common.pairs, *common.data]
        atomic.refuse_inputs(common.output, inputs)
        training.train(plan, training_setup.runtime(common, device))
    if reasons and common.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _plan(request: TrainRequest, model: Embedder, manifest: Manifest, device: torch.device) -> Plan:
    common = request.run
    text = training_setup.augmentation(common, model.spec)
    augmentation = components.load("augmentations", text, size=model.spec.crop)
    keep = common.cache == "ram"
    images = Images(manifest, model.spec, augmentation, seed=common.seed, cache=keep)
    mined: Mining | None = None
    sampler: Sampler
    settings = request.tuples.settings()
    if settings is None:
        sampler, objective = _balanced(request, model, manifest)
    else:
        mined, sampler, objective = _mined(request, settings, model, manifest, images)
    loop = training_setup.loop_settings(common, device)
    held_out = training_setup.validation(common, model, device)
    plan = Plan(
        model=model,
        objective=objective,
        images=images,
        sampler=sampler,
        loop=loop,
        rates=training_setup.rates(common),
        ema=common.ema,
        pretrained=training_setup.is_pretrained(common),
        validation=held_out,
        classes=manifest.label_names,
        history=_history(request, model, manifest, held_out, sampler, loop.precision),
        mining=mined,
    )
    training_setup.report("train", plan)
    return plan


def _balanced(
    request: TrainRequest, model: Embedder, manifest: Manifest
) -> tuple[ClassBalanced, nn.Module]:
    """P x K batches, compared within."""
    sampler = training_setup.class_balanced(request.run, manifest)
    torch.manual_seed(request.run.seed)
    objective = objectives.Supervised(
        request.run.loss,
        mining=request.miner,
        classes=len(manifest.label_names),
        dim=model.spec.dim,
        seed=request.run.seed,
        memory=_memory(request, sampler),
        mixup=request.mixup,
    )
    stage = objective.mixup.stage if objective.mixup is not None else None
    if stage is not None:
        stages.check(model.backbone, stage)
    training_setup.refuse_unequal(
        request.run, model, maps=f"--mixup {request.mixup}" if stage else None
    )
    training_setup.refuse_single(request.run, model, sampler)
    return sampler, objective


def _mined(
    request: TrainRequest,
    settings: MiningSettings,
    model: Embedder,
    manifest: Manifest,
    images: Images,
) -> tuple[Mining, TupleBatches, nn.Module]:
    """Batches of tuples mined by the model itself, each anchor compared within its own."""
    common = request.run
    training_setup.refuse_unequal(common, model, maps=None)
    tuples = Tuples(manifest.labels, settings, seed=common.seed, pairs=manifest.pairs)
    ranks = distributed.world()
    sampler = mining.batches(tuples, size=common.batch_size * ranks, whole=True, processes=ranks)
    training_setup.refuse_single(common, model, sampler)
    torch.manual_seed(common.seed)
    classes, dim = len(manifest.label_names), model.spec.dim
    terms = [
        TeacherPairLoss(
            text, positives="class", symmetric=True, mined=True, classes=classes, dim=dim
        )
        for text in common.loss
    ]
    objective = Distilled(
        terms,
        teacher=None,
        mined=tuples,
        symmetric=True,
        normalize=model.spec.normalize,
        seed=common.seed,
        generator=torch.Generator(),
    )
    own = Mining(tuples, images.seen_as(plain_view(model.spec)), teacher=None, symmetric=True)
    return own, sampler, objective


def _memory(request: TrainRequest, sampler: ClassBalanced) -> MemorySettings | None:
    if request.memory is None:
        return None
    weight = 1.0 if request.memory_weight is None else request.memory_weight
    start = sampler.steps if request.memory_start is None else request.memory_start
    return MemorySettings(request.memory, weight=weight, start=start)


def _history(
    request: TrainRequest,
    model: Embedder,
    manifest: Manifest,
    held_out: Validation | None,
    sampler: Sampler,
    precision: str,
) -> history.History:
    batch: dict[str, int] = {}
    if isinstance(sampler, ClassBalanced):
        batch["classes_per_batch"] = sampler.classes_per_batch
        batch["images_per_class"] = sampler.images_per_class
    own = {key: value for key, value in vars(request).items() if key not in {"run", "tuples"}}
    settings = own | {
        **request.tuples.recorded(),
        "loss": [components.parse("losses", text).text for text in request.run.loss],
        "miner": components.parse("miners", request.miner).text if request.miner else None,
        "mixup": components.parse("mixups", request.mixup).text if request.mixup else None,
        "precision": precision,
        **batch,
    }
    return training_setup.record(
        "train",
        request.run,
        model,
        manifest,
        held_out,
        settings=settings,
        counts={"classes": len(manifest.label_names)},
    )
