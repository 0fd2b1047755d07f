"""The data of a run that learns: its list, batches of it, and what is held out."""

import logging
from collections.abc import Sequence

import numpy as np
import torch

from mltool import components
from mltool.commands import heads
from mltool.commands.selected_data import open_selected
from mltool.commands.training_options import TrainingOptions
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine import sources
from mltool.engine.data import BatchSource, Images, plain_view
from mltool.engine.extract import find_readable
from mltool.engine.loading import default_workers
from mltool.engine.training import Validation
from mltool.engine.vectors import Vectors
from mltool.errors import InputError
from mltool.files.lists import selection
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.models.spec import ModelSpec
from mltool.options.lists import parse_block
from mltool.retrieval.scoring import score

logger = logging.getLogger(__name__)


def read_list(options: TrainingOptions) -> Manifest:
    """Return the list of images or vectors, its rows selected."""
    return open_selected(
        options.data,
        options.lists,
        pairs=options.tuples.pairs,
        need_split=True,
        of_vectors=heads.learns_head(options.model),
    )


def keep_labelled(manifest: Manifest, texts: Sequence[str], command: str) -> Manifest:
    """Return the images of lists `texts` with a label. Raises InputError if there are none."""
    has_label = manifest.labels >= 0
    if not has_label.any():
        raise InputError(
            f"{' '.join(texts)}: no image has a label, but {command} needs classes; add a column "
            "`label`, put each class into a folder of its own, or take them from a list with "
            "--labels"
        )
    if not has_label.all():
        logger.warning("%d images without a label are left out", int((~has_label).sum()))
    return manifest.take(has_label).compact()


def hold_out(options: TrainingOptions, manifest: Manifest) -> tuple[Manifest, Manifest | None]:
    """Return the rows to learn from, and with --fold those of the classes to validate on."""
    if options.validation.fold is None:
        return manifest, None
    fold, folds = parse_block("--fold", options.validation.fold)
    learned, held_out = selection.split_fold(manifest, fold, folds)
    logger.info(
        "fold %d of %d: %d classes are held out, %s to %s; %d are learned",
        *(fold, folds, len(held_out.label_names), min(held_out.label_names)),
        *(max(held_out.label_names), len(learned.label_names)),
    )
    return learned, held_out


def drop_unreadable(
    options: TrainingOptions, manifest: Manifest, model: Embedder
) -> tuple[Manifest, list[str]]:
    """Return the images that can be read, and a reason for each of the others."""
    strict = options.images.on_bad_image == "error" or model.spec.takes_vectors
    if strict or options.execution.dry_run:
        return manifest, []
    images = Images(manifest, model.spec, plain_view(model.spec), seed=0, skip_bad=True)
    rows, reasons = find_readable(images, workers=count_workers(options), batch_size=64)
    for reason in reasons:
        logger.warning("left out: %s", reason)
    return manifest.take(rows).compact(), reasons


def augmentation(options: TrainingOptions, spec: ModelSpec) -> str:
    """Return the text of the augmentation of the training images."""
    return options.images.augment or ("whole" if spec.keep_aspect else "crop")


def open_training(
    options: TrainingOptions,
    model: Embedder,
    manifest: Manifest,
    columns: Sequence[str],
    *,
    seed: int | None = None,
    distinct_draws: int | None = None,
) -> BatchSource:
    """Open the list as a model in training sees it: images augmented, vectors as they are.

    Batches carry `columns`. `seed`, of the run unless it is named, and `distinct_draws` decide
    which augmentations an image has. Of a multi-view augmentation a step takes the first view of
    each draw; the others are not made.
    """
    if model.spec.takes_vectors:
        return Vectors(manifest, columns=columns)
    text = augmentation(options, model.spec)
    return Images(
        manifest,
        model.spec,
        components.load("augmentations", text, size=model.spec.crop),
        seed=options.execution.seed if seed is None else seed,
        cache=options.images.cache == "ram",
        distinct_draws=distinct_draws,
        columns=columns,
    )


def open_validation(
    options: TrainingOptions, model: Embedder, device: torch.device, held_out: Manifest | None
) -> Validation | None:
    """Return the data that decide which weights are kept, None without --val and --fold.

    `held_out` are the images of the fold.
    """
    if options.validation.val is None and held_out is None:
        return None
    # an unknown metric is refused now, not after the first epoch
    score(np.eye(2, dtype=np.float32), np.zeros(2, np.int64), metrics=[options.validation.select])
    manifest = _read_validation(options, model) if held_out is None else held_out
    manifest, _ = drop_unreadable(options, manifest, model)
    source = sources.open_test(manifest, model.spec, cache=options.images.cache == "ram")
    if isinstance(source, Vectors):
        heads.check_input(model.spec, source.stored, head="the head")
    logger.info("validation: %s", manifest.summary())
    return Validation(
        source=source,
        select=options.validation.select,
        batch_size=options.batches.batch_size,
        precision=devices.precision(
            options.execution.precision, device, training=False, of_head=model.spec.takes_vectors
        ),
    )


def _read_validation(options: TrainingOptions, model: Embedder) -> Manifest:
    """Read the labelled images of --val."""
    texts = options.validation.val or []
    manifest = open_data(texts, need_split=True, of_vectors=model.spec.takes_vectors)
    return keep_labelled(manifest, texts, "validation")


def count_workers(options: TrainingOptions) -> int:
    """Return the number of loading processes; cached vectors need none."""
    if options.execution.workers is not None:
        return options.execution.workers
    return 0 if heads.learns_head(options.model) else default_workers()
