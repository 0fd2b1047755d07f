"""What the plans of all commands that learn have in common: model, sampler, rates, report."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

import numpy as np
import torch

from mltool import components, distributed
from mltool.commands import heads, training_data
from mltool.commands.training_options import DEFAULT_ARCH, DEFAULT_DIM, TrainingOptions
from mltool.engine import device as devices
from mltool.engine.course import Course
from mltool.engine.loop import LoopSettings
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import ClassBalanced, Sampler, choose_sizes
from mltool.engine.training import ExecutionOptions, TrainingPlan
from mltool.errors import InputError, UsageError
from mltool.files.manifest import Manifest
from mltool.models import backbones, checkpoint, kept_run, learners
from mltool.models.embedder import Embedder, build, count_parameters
from mltool.models.modes import has_batch_norm

logger = logging.getLogger(__name__)


@contextmanager
def session(options: TrainingOptions) -> Iterator[torch.device]:
    """Set threads, determinism and the process group; yield the device."""
    device = devices.choose(options.execution.device)
    devices.set_threads(options.execution.threads)
    if options.execution.deterministic:
        devices.make_deterministic()
    with distributed.session(device):
        yield device


def build_model(
    options: TrainingOptions,
    manifest: Manifest,
    *,
    default_dim: int | None = None,
    parts: str | None = None,
) -> Embedder:
    """Build the model to start from: new, with a backbone's weights, or a checkpoint's.

    A head is built for the vectors of the list. `default_dim` is the length of an embedding unless
    --dim says another; without it a checkpoint keeps the length that it has. `parts` is how the
    vector is divided, None = as in the checkpoint.
    """
    if heads.learns_head(options.model):
        return heads.build(options, manifest, default_dim=default_dim, parts=parts)
    start = checkpoint.read(options.model.init) if options.model.init is not None else None
    spec = start.spec if start is not None else None
    if spec is not None and spec.takes_vectors:
        raise InputError(f"{options.model.init} takes cached vectors; go on with --arch vectors")
    keep_aspect = options.images.keep_aspect or (spec is not None and spec.keep_aspect)
    resized = options.images.image_size is not None or keep_aspect
    is_new = options.model.adds_projection(needs_length=default_dim is not None)
    default_projection = spec.projection if spec else "linear" if is_new else "none"
    length = options.model.dim or default_dim
    if spec and spec.projection == "none" and length not in (None, spec.dim):
        default_projection = "linear"  # a backbone alone, such as `pretrain` writes, gets one
    projection = options.model.projection or default_projection
    default_length = default_dim or (spec.dim if spec else DEFAULT_DIM)
    model = build(
        options.model.arch or (spec.backbone if spec else DEFAULT_ARCH),
        pooling=options.model.pooling or (spec.pooling if spec else "gem"),
        projection=projection,
        # without a projection an embedding is as long as what the pooling gives
        dim=options.model.dim or (None if projection == "none" else default_length),
        image_size=options.images.image_size or (spec.crop if spec else None),
        resize=options.images.resize or (spec.resize if spec and not resized else None),
        weights=options.model.weights,
        seed=options.execution.seed,
        keep_aspect=keep_aspect,
        parts=parts if parts is not None else spec.parts if spec else "",
    )
    if start is not None and options.model.init is not None:
        state = learners.keep_fitting(start.state, start.spec.parts, model.spec.parts)
        checkpoint.load_matching(model, state, options.model.init)
    return model


def refuse_unequal(options: TrainingOptions, model: Embedder, *, maps: str | None) -> None:
    """Raise UsageError if --augment whole meets batch norm or a loss on feature maps.

    `maps` names the option that wants the feature maps of a batch as one tensor, if one does.
    """
    if model.spec.takes_vectors:
        return
    text = training_data.augmentation(options, model.spec)
    if components.parse("augmentations", text).name != "whole":
        return
    if maps is not None:
        raise UsageError(f"{maps} needs images of one size; add --augment crop")
    if not options.freeze_bn and has_batch_norm(model):
        raise UsageError(
            "images of unequal sizes have no common batch statistics; add --freeze-bn "
            "or --augment crop"
        )


def refuse_single(options: TrainingOptions, model: Embedder, sampler: Sampler) -> None:
    """Raise UsageError where a process would normalise a single image by its own statistics."""
    alone = sampler.size // distributed.world() < 2
    if alone and not options.freeze_bn and has_batch_norm(model):
        raise UsageError(
            "one image has no batch statistics; raise --batch-size (-b) or add --freeze-bn"
        )


def input_size(options: TrainingOptions) -> int:
    """Return the side of the images that the model of `build_model` will see."""
    if options.images.image_size is not None:
        return options.images.image_size
    if options.model.init is not None:
        return checkpoint.read(options.model.init).spec.crop
    return backbones.default_size(options.model.arch or DEFAULT_ARCH)


def class_balanced(options: TrainingOptions, manifest: Manifest) -> ClassBalanced:
    """Return the sampler of P x K batches over all ranks."""
    if manifest.pairs is not None:
        logger.warning(
            "images of one class need not show the same thing: this list declares %d pairs, which "
            "--mining hard or random uses",
            len(manifest.pairs),
        )
    fit_sizes = partial(
        choose_sizes,
        batch_size=options.batches.batch_size * distributed.world(),
        classes_per_batch=options.batches.classes_per_batch,
        processes=distributed.world(),
    )
    p, k = fit_sizes(len(manifest.label_names), images_per_class=options.batches.images_per_class)
    if options.batches.small_classes == "skip":
        images = np.bincount(manifest.labels[manifest.labels >= 0])
        p, k = fit_sizes(max(2, int((images >= k).sum())), images_per_class=k)
    sampler = ClassBalanced(
        manifest.labels,
        classes_per_batch=p,
        images_per_class=k,
        seed=options.execution.seed,
        small_classes=options.batches.small_classes,
    )
    if sampler.left_out:
        logger.warning("%d classes have fewer than %d images", len(sampler.left_out), k)
    return sampler


def loop_settings(options: TrainingOptions, device: torch.device, model: Embedder) -> LoopSettings:
    """Return what decides the course of the run."""
    return LoopSettings(
        epochs=options.optimisation.epochs,
        seed=options.execution.seed,
        precision=devices.precision(
            options.execution.precision, device, training=True, of_head=model.spec.takes_vectors
        ),
        freeze_bn=options.freeze_bn,
        clip=options.optimisation.clip,
        val_every=options.validation.val_every,
        patience=options.validation.patience,
        from_epoch=options.optimisation.from_epoch,
        to_epoch=options.optimisation.to_epoch,
    )


def open_course(options: TrainingOptions) -> Course:
    """Return which state the run goes on with, and whether it keeps one for another run."""
    settings, init = options.optimisation, options.model.init
    if settings.from_epoch and not options.model.keep_optimizer:
        logger.warning(
            "epoch %d begins with a fresh optimiser; --keep-optimizer goes on with that of --init",
            settings.from_epoch,
        )
    return Course(
        kept=kept_run.read(init) if options.model.keep_optimizer and init else None,
        saves=settings.save_optimizer,
    )


def choose_rates(options: TrainingOptions, *, steps: int) -> OptimSettings:
    """Return how parameters move in epochs of `steps` steps."""
    settings = options.optimisation
    return OptimSettings(
        optimizer=settings.optimizer,
        lr=options.lr,
        weight_decay=settings.weight_decay,
        momentum=settings.momentum,
        schedule=settings.schedule,
        warmup=options.choose_warmup(steps=steps),
        lr_groups=settings.rates,
    )


def report(command: str, plan: TrainingPlan) -> None:
    """Log the images, the model and the number of steps."""
    spec, sampler = plan.model.spec, plan.main.sampler
    what = f"{spec.channels}-d input" if spec.takes_vectors else f"{spec.crop} px"
    logger.info("%s: %s", command, plan.main.source.manifest.summary())
    logger.info(
        "%s, %d-d, %.1f M parameters, %s; %d epochs of %d steps of %s %s",
        spec.backbone,
        spec.dim,
        count_parameters(plan.model) / 1e6,
        what,
        plan.loop.epochs,
        sampler.steps,
        sampler.summary(),
        "vectors" if spec.takes_vectors else "images",
    )
    if plan.loop.from_epoch or plan.loop.end < plan.loop.epochs:
        first, last = plan.loop.from_epoch, plan.loop.end - 1
        logger.info("of these the epochs %d to %d", first, last)
    if warmup := plan.objective.warmup:
        logger.info("the model stands still in the first %d steps", warmup)


def runtime(options: TrainingOptions, device: torch.device) -> ExecutionOptions:
    """Return how the run is carried out."""
    return ExecutionOptions(
        output=options.output,
        resume=options.execution.resume,
        allow_nonidentical=options.execution.allow_nonidentical,
        save_every=options.execution.save_every,
        log=options.execution.log,
        workers=training_data.count_workers(options),
        device=device,
    )
