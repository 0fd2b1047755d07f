"""`mltool train` as a library call: from a request to a plan, and the plan carried out."""

import logging

import torch

from mltool import components, distributed
from mltool.commands import training_setup
from mltool.commands.objective import Additions, Pairing, build_objective
from mltool.commands.request import TrainRequest
from mltool.engine import training
from mltool.engine.data import Images
from mltool.engine.mining import (
    MiningSettings,
    Tuples,
    TupleSampler,
    choose_tuples_per_batch,
)
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.samplers import ClassBalanced, Sampler
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan, Validation
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


def _plan(
    request: TrainRequest, model: Embedder, manifest: Manifest, device: torch.device
) -> TrainingPlan:
    common = request.run
    text = training_setup.augmentation(common, model.spec)
    augmentation = components.load("augmentations", text, size=model.spec.crop)
    keep = common.cache == "ram"
    images = Images(manifest, model.spec, augmentation, seed=common.seed, cache=keep)
    sampler: Sampler
    settings = request.tuples.settings()
    if settings is None:
        sampler, objective = _balanced(request, model, manifest)
    else:
        sampler, objective = _mined(request, settings, model, manifest)
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
        history=_history(request, model, manifest, held_out, sampler, loop.precision),
    )
    training_setup.report("train", plan)
    return plan


def _balanced(
    request: TrainRequest, model: Embedder, manifest: Manifest
) -> tuple[ClassBalanced, Objective]:
    """Build P x K batches, compared within, and their objective."""
    sampler = training_setup.class_balanced(request.run, manifest)
    additions = Additions(
        miner=components.parse("miners", request.miner) if request.miner else None,
        memory=_memory(request, sampler),
        mixup=components.parse("mixups", request.mixup) if request.mixup else None,
    )
    objective = build_objective(
        [components.parse("losses", text) for text in request.run.loss],
        Pairing(),
        additions,
        model=model,
        classes=len(manifest.label_names),
        seed=request.run.seed,
    )
    if objective.stage is not None:
        stages.check(model.backbone, objective.stage)
    training_setup.refuse_unequal(
        request.run, model, maps=f"--mixup {request.mixup}" if objective.stage else None
    )
    training_setup.refuse_single(request.run, model, sampler)
    return sampler, objective


def _mined(
    request: TrainRequest, settings: MiningSettings, model: Embedder, manifest: Manifest
) -> tuple[TupleSampler, Objective]:
    """Build batches of tuples mined by the model itself, and their objective."""
    common = request.run
    training_setup.refuse_unequal(common, model, maps=None)
    tuples = Tuples(manifest.labels, settings, seed=common.seed, pairs=manifest.pairs)
    ranks = distributed.world()
    count = choose_tuples_per_batch(
        tuples, size=common.batch_size * ranks, full_tuples=True, processes=ranks
    )
    sampler = TupleSampler(tuples, per_batch=count, full_tuples=True)
    training_setup.refuse_single(common, model, sampler)
    objective = build_objective(
        [components.parse("losses", text) for text in common.loss],
        Pairing(images_per_tuple=sampler.images_per_tuple),
        Additions(),
        model=model,
        classes=len(manifest.label_names),
        seed=common.seed,
    )
    return sampler, objective


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
