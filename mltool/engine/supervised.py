"""`mltool train` as a library call: from a request to a plan, and the plan carried out."""

import logging

import numpy as np
import torch

from mltool import components, distributed
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine import terms, training
from mltool.engine.data import Images, default_workers
from mltool.engine.loop import LoopSettings
from mltool.engine.memory import MemorySettings
from mltool.engine.objectives import supervised as objectives
from mltool.engine.optim import OptimSettings
from mltool.engine.request import TrainRequest
from mltool.engine.samplers import ClassBalanced, sizes
from mltool.engine.training import Plan, Runtime, Validation
from mltool.errors import InputError, SkippedInputs, UsageError
from mltool.files import atomic, history
from mltool.files.manifest import Manifest
from mltool.models import checkpoint
from mltool.models.embedder import Embedder, build, parameters
from mltool.retrieval.evaluate import score

logger = logging.getLogger(__name__)


def run(request: TrainRequest) -> None:
    """Train as requested; the model appears under `request.output` when it is finished.

    Raises SkippedInputs at the end when images were left out, and what `training.train` raises.
    """
    request.check()
    device = devices.choose(request.device)
    devices.set_threads(request.threads)
    if request.deterministic:
        devices.make_deterministic()
    with distributed.session(device):
        manifest = _labelled(
            open_data(
                request.data,
                split=request.split,
                classes=request.classes,
                limit=request.limit,
                labels=request.labels,
                root=request.root,
                need_split=True,
            )
        )
        model = build_model(request)
        manifest, reasons = _readable(request, manifest, model)
        plan = _plan(request, model, manifest, device)
        _report(plan)
        if request.dry_run:
            size = 4 * parameters(model) / 1e6
            logger.info("would write %s, about %.1f MB", request.output, size)
            return
        atomic.refuse_inputs(request.output, [request.init, request.weights, *request.data])
        training.train(plan, _runtime(request, device))
    if reasons and request.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _labelled(manifest: Manifest) -> Manifest:
    known = manifest.labels >= 0
    if not known.any():
        raise InputError("none of the images has a label; train needs classes")
    if not known.all():
        logger.warning("%d images without a label are left out", int((~known).sum()))
    return manifest.take(known).compact()


def build_model(request: TrainRequest) -> Embedder:
    """The model to start from: new, with a backbone's weights, or a checkpoint's."""
    start = checkpoint.read(request.init) if request.init is not None else None
    if start is not None and request.weights is not None:
        raise UsageError("--init brings the backbone's weights along; leave out --weights")
    spec = start.spec if start is not None else None
    model = build(
        request.arch or (spec.backbone if spec else "resnet50"),
        pooling=request.pooling or (spec.pooling if spec else "gem"),
        projection=request.projection or (spec.projection if spec else "linear"),
        dim=request.dim or (spec.dim if spec else _usual_dim(request.projection)),
        image_size=request.image_size or (spec.crop if spec else None),
        resize=request.resize or (spec.resize if spec and not request.image_size else None),
        weights=request.weights,
        seed=request.seed,
    )
    if start is not None and request.init is not None:
        checkpoint.load_matching(model, start.state, request.init)
    return model


def _usual_dim(projection: str | None) -> int | None:
    """512 as in the papers; without a projection what the pooling gives."""
    return None if projection == "none" else 512


def _readable(
    request: TrainRequest, manifest: Manifest, model: Embedder
) -> tuple[Manifest, list[str]]:
    """The images without those that are to be skipped, and why each of these is."""
    if request.on_bad_image == "error" or request.dry_run:
        return manifest, []
    center = components.load("augmentations", "center", size=model.spec.crop)
    images = Images(manifest, model.spec, center, seed=0, skip_bad=True)
    rows, reasons = training.usable(images, workers=_workers(request), batch_size=64)
    for reason in reasons:
        logger.warning("left out: %s", reason)
    return manifest.take(rows).compact(), reasons


def _plan(request: TrainRequest, model: Embedder, manifest: Manifest, device: torch.device) -> Plan:
    augmentation = components.load("augmentations", request.augment, size=model.spec.crop)
    keep = request.cache == "ram"
    images = Images(manifest, model.spec, augmentation, seed=request.seed, cache=keep)
    total = request.batch_size * distributed.world()
    p, k = sizes(
        len(manifest.label_names),
        batch_size=total,
        classes_per_batch=request.classes_per_batch,
        images_per_class=request.images_per_class,
        processes=distributed.world(),
    )
    sampler = ClassBalanced(
        manifest.labels,
        classes_per_batch=p,
        images_per_class=k,
        seed=request.seed,
        small_classes=request.small_classes,
    )
    torch.manual_seed(request.seed)
    objective = objectives.Supervised(
        request.loss,
        mining=request.miner,
        classes=len(manifest.label_names),
        dim=model.spec.dim,
        seed=request.seed,
        memory=_memory(request, sampler),
    )
    precision = devices.precision(request.precision, device, training=True)
    loop = LoopSettings(
        epochs=request.epochs,
        seed=request.seed,
        precision=precision,
        freeze_bn=request.freeze_bn,
        clip=request.clip,
        val_every=request.val_every,
        patience=request.patience,
    )
    rates = OptimSettings(
        optimizer=request.optimizer,
        lr=request.lr,
        lr_backbone=request.lr_backbone,
        lr_proxies=request.lr_proxies,
        weight_decay=request.weight_decay,
        momentum=request.momentum,
        schedule=request.schedule,
        warmup=request.warmup,
    )
    validation = _validation(request, model, device) if request.val else None
    return Plan(
        model=model,
        objective=objective,
        images=images,
        sampler=sampler,
        loop=loop,
        rates=rates,
        ema=request.ema,
        pretrained=request.weights is not None or request.init is not None,
        validation=validation,
        classes=manifest.label_names,
        history=_history(request, model, manifest, validation, sampler, precision),
    )


def _memory(request: TrainRequest, sampler: ClassBalanced) -> MemorySettings | None:
    if request.memory is None:
        return None
    start = sampler.steps if request.memory_start is None else request.memory_start
    return MemorySettings(request.memory, weight=request.memory_weight, start=start)


def _validation(request: TrainRequest, model: Embedder, device: torch.device) -> Validation:
    # an unknown metric is refused now, not after the first epoch
    score(np.eye(2, dtype=np.float32), np.zeros(2, np.int64), metrics=[request.select])
    manifest = _labelled(open_data(request.val or [], need_split=True))
    manifest, _ = _readable(request, manifest, model)
    center = components.load("augmentations", "center", size=model.spec.crop)
    images = Images(manifest, model.spec, center, seed=0, cache=request.cache == "ram")
    logger.info("validation: %s", manifest.summary())
    return Validation(
        images=images,
        select=request.select,
        batch_size=request.batch_size,
        precision=devices.precision(request.precision, device, training=False),
    )


def _history(
    request: TrainRequest,
    model: Embedder,
    manifest: Manifest,
    validation: Validation | None,
    sampler: ClassBalanced,
    precision: str,
) -> history.History:
    spec = model.spec
    inputs = history.list_inputs("data", request.data, manifest.digest())
    if validation is not None:
        digest = validation.images.manifest.digest()
        inputs += history.list_inputs("--val", request.val or [], digest)
    if request.labels:
        inputs += history.list_inputs("--labels", [request.labels], manifest.digest())
    files = [("--init", request.init), ("--weights", request.weights)]
    given = [(option, path) for option, path in files if path and path != "timm"]
    inputs += [(option, path, history.digest_of_file(path)) for option, path in given]
    settings = {
        key: value
        for key, value in vars(request).items()
        if key not in {"data", "val", "init", "labels", "root"}
        and (key, value) != ("weights", None)
    } | {
        "arch": spec.backbone,
        "dim": spec.dim,
        "pooling": spec.pooling,
        "projection": spec.projection,
        "image_size": spec.crop,
        "resize": spec.resize,
        "loss": [terms.resolved("losses", text) for text in request.loss],
        "miner": components.resolved("miners", request.miner) if request.miner else None,
        "augment": components.resolved("augmentations", request.augment),
        "classes_per_batch": sampler.classes_per_batch,
        "images_per_class": sampler.images_per_class,
        "precision": precision,
    }
    if request.weights and request.weights != "timm":
        del settings["weights"]
    if validation is None:
        del settings["select"], settings["val_every"]
    counts = {"images": len(manifest), "classes": len(sampler.members)}
    before = history.of_files([*request.data, *(request.val or []), request.labels, request.init])
    step = history.record("train", inputs=inputs, settings=settings, counts=counts)
    return history.extend(*before, record=step)


def _report(plan: Plan) -> None:
    spec, sampler = plan.model.spec, plan.sampler
    logger.info("train: %s", plan.images.manifest.summary())
    if sampler.left_out:
        logger.warning(
            "%d classes have fewer than %d images", len(sampler.left_out), sampler.images_per_class
        )
    logger.info(
        "%s, %d-d, %.1f M parameters, %d px; %d epochs of %d steps of %d x %d images",
        spec.backbone,
        spec.dim,
        parameters(plan.model) / 1e6,
        spec.crop,
        plan.loop.epochs,
        sampler.steps,
        sampler.classes_per_batch,
        sampler.images_per_class,
    )


def _workers(request: TrainRequest) -> int:
    return default_workers() if request.workers is None else request.workers


def _runtime(request: TrainRequest, device: torch.device) -> Runtime:
    return Runtime(
        output=request.output,
        resume=request.resume,
        allow_nonidentical=request.allow_nonidentical,
        save_every=request.save_every,
        log=request.log,
        workers=_workers(request),
        device=device,
    )
