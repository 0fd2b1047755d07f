"""What the plans of all commands that learn have in common: model, images, rates, history."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from mltool import components, distributed
from mltool.commands.request import RunRequest
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine.data import Images, plain_view
from mltool.engine.extract import find_readable
from mltool.engine.loading import default_workers
from mltool.engine.loop import LoopSettings
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import ClassBalanced, Sampler, choose_sizes
from mltool.engine.training import ExecutionOptions, TrainingPlan, Validation
from mltool.errors import InputError, UsageError
from mltool.files import history
from mltool.files.manifest import Manifest
from mltool.models import backbones, checkpoint
from mltool.models.embedder import Embedder, build, count_parameters
from mltool.models.modes import has_batch_norm
from mltool.models.spec import ModelSpec
from mltool.retrieval.scoring import score

logger = logging.getLogger(__name__)

USUAL_ARCH, USUAL_DIM = "resnet50", 512  # as in the papers


@contextmanager
def session(request: RunRequest) -> Iterator[torch.device]:
    """The device of a run, which threads, determinism and the other ranks are set up for."""
    device = devices.choose(request.device)
    devices.set_threads(request.threads)
    if request.deterministic:
        devices.make_deterministic()
    with distributed.session(device):
        yield device


def images_of(request: RunRequest) -> Manifest:
    """The image list as asked for."""
    return open_data(
        request.data,
        split=request.split,
        classes=request.classes,
        limit=request.limit,
        labels=request.labels,
        pairs=request.pairs,
        root=request.root,
        need_split=True,
    )


def labelled(manifest: Manifest, texts: Sequence[str], command: str) -> Manifest:
    """The images of lists `texts` with a label. Raises InputError if there are none."""
    known = manifest.labels >= 0
    if not known.any():
        raise InputError(
            f"{' '.join(texts)}: no image has a label, but {command} needs classes; add a column "
            "`label`, or put each class into a folder of its own"
        )
    if not known.all():
        logger.warning("%d images without a label are left out", int((~known).sum()))
    return manifest.take(known).compact()


def build_model(request: RunRequest, *, usual_dim: int | None = None) -> Embedder:
    """The model to start from: new, with a backbone's weights, or a checkpoint's.

    `usual_dim` is the length of an embedding unless another one is asked for; without it a
    checkpoint keeps its own.
    """
    start = checkpoint.read(request.init) if request.init is not None else None
    if start is not None and request.weights is not None:
        raise UsageError("--init brings the backbone's weights along; leave out --weights")
    spec = start.spec if start is not None else None
    keep_aspect = request.keep_aspect or (spec is not None and spec.keep_aspect)
    resized = request.image_size is not None or keep_aspect
    projection = request.projection or (spec.projection if spec else "linear")
    usual = usual_dim or (spec.dim if spec else USUAL_DIM)
    model = build(
        request.arch or (spec.backbone if spec else USUAL_ARCH),
        pooling=request.pooling or (spec.pooling if spec else "gem"),
        projection=projection,
        # without a projection an embedding is as long as what the pooling gives
        dim=request.dim or (None if projection == "none" else usual),
        image_size=request.image_size or (spec.crop if spec else None),
        resize=request.resize or (spec.resize if spec and not resized else None),
        weights=request.weights,
        seed=request.seed,
        keep_aspect=keep_aspect,
    )
    if start is not None and request.init is not None:
        checkpoint.load_matching(model, start.state, request.init)
    return model


def augmentation(request: RunRequest, spec: ModelSpec) -> str:
    """What is done to the images of training, as the text of a component."""
    return request.augment or ("whole" if spec.keep_aspect else "crop")


def refuse_unequal(request: RunRequest, model: Embedder, *, maps: str | None) -> None:
    """Raise UsageError for what images of unequal sizes cannot have.

    `maps` names what wants the feature maps of a batch as one tensor, if something does.
    """
    text = augmentation(request, model.spec)
    if components.parse("augmentations", text).name != "whole":
        return
    if maps is not None:
        raise UsageError(f"{maps} needs images of one size; add --augment crop")
    if not request.freeze_bn and has_batch_norm(model):
        raise UsageError(
            "images of unequal sizes have no common batch statistics; add --freeze-bn "
            "or --augment crop"
        )


def refuse_single(request: RunRequest, model: Embedder, sampler: Sampler) -> None:
    """Raise UsageError where a process would normalise a single image by its own statistics."""
    alone = sampler.size // distributed.world() < 2
    if alone and not request.freeze_bn and has_batch_norm(model):
        raise UsageError(
            "one image has no batch statistics; raise --batch-size (-b) or add --freeze-bn"
        )


def crop_of(request: RunRequest) -> int:
    """The side of the images that the model of `build_model` will see."""
    if request.image_size is not None:
        return request.image_size
    if request.init is not None:
        return checkpoint.read(request.init).spec.crop
    return backbones.default_size(request.arch or USUAL_ARCH)


def readable(
    request: RunRequest, manifest: Manifest, model: Embedder
) -> tuple[Manifest, list[str]]:
    """The images without those that are to be skipped, and why each of these is."""
    if request.on_bad_image == "error" or request.dry_run:
        return manifest, []
    images = Images(manifest, model.spec, plain_view(model.spec), seed=0, skip_bad=True)
    rows, reasons = find_readable(images, workers=workers(request), batch_size=64)
    for reason in reasons:
        logger.warning("left out: %s", reason)
    return manifest.take(rows).compact(), reasons


def class_balanced(request: RunRequest, manifest: Manifest) -> ClassBalanced:
    """P x K batches as asked for, over all ranks."""
    if manifest.pairs is not None:
        logger.warning(
            "images of one class need not show the same thing: this list declares %d pairs, which "
            "--mining hard or random uses",
            len(manifest.pairs),
        )
    fitting = partial(
        choose_sizes,
        batch_size=request.batch_size * distributed.world(),
        classes_per_batch=request.classes_per_batch,
        processes=distributed.world(),
    )
    p, k = fitting(len(manifest.label_names), images_per_class=request.images_per_class)
    if request.small_classes == "skip":
        images = np.bincount(manifest.labels[manifest.labels >= 0])
        p, k = fitting(max(2, int((images >= k).sum())), images_per_class=k)
    sampler = ClassBalanced(
        manifest.labels,
        classes_per_batch=p,
        images_per_class=k,
        seed=request.seed,
        small_classes=request.small_classes,
    )
    if sampler.left_out:
        logger.warning("%d classes have fewer than %d images", len(sampler.left_out), k)
    return sampler


def loop_settings(request: RunRequest, device: torch.device) -> LoopSettings:
    """What decides the course of the run."""
    return LoopSettings(
        epochs=request.epochs,
        seed=request.seed,
        precision=devices.precision(request.precision, device, training=True),
        freeze_bn=request.freeze_bn,
        clip=request.clip,
        val_every=request.val_every,
        patience=request.patience,
    )


def rates(request: RunRequest) -> OptimSettings:
    """How parameters move."""
    groups = {"backbone": request.lr_backbone, "proxies": request.lr_proxies}
    return OptimSettings(
        optimizer=request.optimizer,
        lr=request.lr,
        weight_decay=request.weight_decay,
        momentum=request.momentum,
        schedule=request.schedule,
        warmup=request.warmup,
        lr_groups={name: rate for name, rate in groups.items() if rate is not None},
    )


def validation(request: RunRequest, model: Embedder, device: torch.device) -> Validation | None:
    """The data that decide which weights are kept, if some were named."""
    if request.val is None:
        return None
    # an unknown metric is refused now, not after the first epoch
    score(np.eye(2, dtype=np.float32), np.zeros(2, np.int64), metrics=[request.select])
    manifest = labelled(open_data(request.val, need_split=True), request.val, "validation")
    manifest, _ = readable(request, manifest, model)
    cached = request.cache == "ram"
    images = Images(manifest, model.spec, plain_view(model.spec), seed=0, cache=cached)
    logger.info("validation: %s", manifest.summary())
    return Validation(
        images=images,
        select=request.select,
        batch_size=request.batch_size,
        precision=devices.precision(request.precision, device, training=False),
    )


def is_pretrained(request: RunRequest) -> bool:
    """Whether the backbone has learned before."""
    return request.weights is not None or request.init is not None


def record(
    command: str,
    request: RunRequest,
    model: Embedder,
    manifest: Manifest,
    held_out: Validation | None,
    *,
    settings: Mapping[str, object],
    counts: Mapping[str, int],
    inputs: Sequence[tuple[str, str, str]] = (),
    before: Sequence[history.History] = (),
) -> history.History:
    """The history of a run; `settings`, `counts`, `inputs` and `before` are of the command."""
    spec = model.spec
    given = history.list_inputs("data", request.data, manifest.digest())
    if held_out is not None:
        digest = held_out.images.manifest.digest()
        given += history.list_inputs("--val", request.val or [], digest)
    if request.labels:
        given += history.list_inputs("--labels", [request.labels], manifest.digest())
    files = [("--pairs", request.pairs), ("--init", request.init), ("--weights", request.weights)]
    named = [(option, path) for option, path in files if path and path != "timm"]
    given += [(option, path, history.digest_of_file(path)) for option, path in named]
    common = {
        key: value
        for key, value in vars(request).items()
        if key not in {"data", "val", "init", "labels", "pairs", "root"}
        and (key, value) not in (("weights", None), ("keep_aspect", False))
    } | {
        "arch": spec.backbone,
        "dim": spec.dim,
        "pooling": spec.pooling,
        "projection": spec.projection,
        "image_size": spec.crop,
        "resize": spec.resize,
        "augment": components.parse("augmentations", augmentation(request, spec)).text,
    }
    if request.weights and request.weights != "timm":
        del common["weights"]
    if held_out is None:
        del common["select"], common["val_every"]
    if manifest.pairs is not None and settings.get("mining", "none") != "none":
        counts = {**counts, "pairs": len(manifest.pairs)}
    step = history.record(
        command,
        inputs=[*given, *inputs],
        settings=common | dict(settings),
        counts={"images": len(manifest), **counts},
    )
    lists = [*request.data, *(request.val or []), request.labels, request.pairs, request.init]
    return history.extend(*history.read_all(lists), *before, record=step)


def report(command: str, plan: TrainingPlan) -> None:
    """Say what the run has taken and will do."""
    spec, sampler = plan.model.spec, plan.main.sampler
    logger.info("%s: %s", command, plan.main.source.manifest.summary())
    logger.info(
        "%s, %d-d, %.1f M parameters, %d px; %d epochs of %d steps of %s images",
        spec.backbone,
        spec.dim,
        count_parameters(plan.model) / 1e6,
        spec.crop,
        plan.loop.epochs,
        sampler.steps,
        sampler.summary(),
    )


def workers(request: RunRequest) -> int:
    """Loading processes."""
    return default_workers() if request.workers is None else request.workers


def runtime(request: RunRequest, device: torch.device) -> ExecutionOptions:
    """How the run is carried out."""
    return ExecutionOptions(
        output=request.output,
        resume=request.resume,
        allow_nonidentical=request.allow_nonidentical,
        save_every=request.save_every,
        log=request.log,
        workers=workers(request),
        device=device,
    )
