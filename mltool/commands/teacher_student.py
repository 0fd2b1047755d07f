"""Build teacher and student for `distill`, and refuse combinations that do not fit."""

import dataclasses
import os

import timm
import torch

from mltool.commands import heads, training_setup
from mltool.commands.training_options import TrainingOptions
from mltool.engine import device as devices
from mltool.engine.teachers import CachedTeacher, OnlineTeacher, is_file_of_vectors
from mltool.errors import InputError, UsageError
from mltool.files.cached_vectors import CachedVectors
from mltool.files.manifest import WEIGHTS, Manifest
from mltool.models.embedder import Embedder
from mltool.models.source import open_checkpoint, open_model
from mltool.options import choices, rules
from mltool.options.choices import is_transfer, trains_embeddings
from mltool.options.heads import refuse_repeats
from mltool.options.teacher import TeacherOptions


def name_loss_on_maps(options: TrainingOptions) -> str | None:
    """Return the first loss that compares feature maps, as an option, None without one."""
    for loss in options.losses:
        if is_transfer(loss) and "maps" in loss.declared.needs:
            return f"--loss {loss.name}"
    return None


def refuse_weights(options: TrainingOptions, manifest: Manifest) -> None:
    """Raise UsageError where a loss would ignore the weights of the images."""
    for column in filter(manifest.columns.__contains__, WEIGHTS):
        for loss in options.losses:
            if is_transfer(loss) or loss.declared.takes_vectors:
                raise UsageError(
                    f"--loss {loss.name} has no pairs and cannot weight images; leave out the "
                    f"column `{column}` or use another --loss"
                )


def needs_labels(options: TrainingOptions, teaching: TeacherOptions) -> bool:
    """Return whether tuples or a loss need classes."""
    return options.mining is not None or any(
        choices.needs_labels(loss, teaching.positives, symmetric=teaching.symmetric)
        for loss in options.losses
    )


def is_asymmetric(options: TrainingOptions, teaching: TeacherOptions) -> bool:
    """Return whether the vectors of the student are compared with those of the teacher."""
    return choices.is_asymmetric(options.losses, symmetric=teaching.symmetric)


def build_teacher(
    options: TrainingOptions, teaching: TeacherOptions, device: torch.device
) -> CachedTeacher | OnlineTeacher:
    """Open the teacher. Raises UsageError where losses or batches need another kind of it."""
    stages = rules.count_stages(teaching, options.losses)
    name = teaching.teacher
    if not os.path.exists(name) and timm.is_model(name):
        raise UsageError(f"no file {name}; the backbone is timm:{name}")
    if is_file_of_vectors(name):
        if teaching.teacher_weights is not None:
            raise UsageError("--teacher-weights is for a backbone; these are embeddings")
        if stages is not None:
            raise UsageError(
                f"--teacher {name} holds vectors, but this --loss needs the features of the "
                "network itself; name the checkpoint"
            )
        return CachedTeacher(name)
    if options.mining is not None or teaching.neighbors is not None:
        raise UsageError(
            "--mining and --neighbors need the teacher's vectors of all images; embed them, and "
            "name that file as --teacher"
        )
    if teaching.teacher_weights is not None and not name.startswith("timm:"):
        raise UsageError("--teacher-weights is for timm:NAME; a checkpoint has its own")
    if heads.learns_head(options.model):
        return _open_head(options, name, device)
    if heads.is_head(name):
        raise UsageError(
            f"{name} takes cached vectors, not images; embed the images, apply it to these vectors "
            "with `mltool embed`, and name that file as --teacher"
        )
    crop = training_setup.input_size(options)
    source = open_model(
        name,
        weights=teaching.teacher_weights,
        pooling=None,
        image_size=crop if name.startswith("timm:") else None,
        resize=None,
        seed=options.execution.seed,
    )
    precision = devices.precision(options.execution.precision, device, training=True)
    teacher = OnlineTeacher(source, device=device, precision=precision, stages=stages)
    teacher.report(None if options.images.keep_aspect else crop)
    return teacher


def _open_head(options: TrainingOptions, name: str, device: torch.device) -> OnlineTeacher:
    """Open a head that learned on the same vectors, to run along."""
    if not heads.is_head(name):
        raise UsageError(
            f"--teacher {name} takes images, but the student cached vectors; embed the images "
            "with the teacher, and name that file as --teacher"
        )
    precision = devices.precision(options.execution.precision, device, training=True, of_head=True)
    teacher = OnlineTeacher(open_checkpoint(name), device=device, precision=precision, stages=None)
    teacher.report(None)
    return teacher


def refuse_views(teaching: TeacherOptions, teacher: CachedTeacher | OnlineTeacher) -> None:
    """Raise UsageError where views of an image meet its one cached vector."""
    refuse_repeats(teaching)
    if isinstance(teacher, CachedTeacher) and teacher.views > 1:
        raise UsageError(
            f"{teaching.teacher} holds {teacher.views} views of each image, but a cached vector "
            "shows one; embed the images with the teacher without --views"
        )


def build_student(
    options: TrainingOptions,
    teaching: TeacherOptions,
    teacher: CachedTeacher | OnlineTeacher,
    manifest: Manifest,
) -> Embedder:
    """Build the student, with vectors as long as the teacher's where they are compared."""
    asymmetric = is_asymmetric(options, teaching)
    if asymmetric and teacher.metric != "cosine":
        raise InputError(
            f"{teaching.teacher}: these vectors are compared by {teacher.metric}, but a student's "
            "with its teacher's by cosine; use a transfer or --symmetric"
        )
    model = training_setup.build_model(
        options, manifest, default_dim=teacher.dim if asymmetric else None
    )
    if asymmetric and model.spec.dim != teacher.dim:
        raise UsageError(
            f"the student's vectors would be {model.spec.dim}-d, but {teaching.teacher} has "
            f"{teacher.dim}-d ones to compare them with; leave out --dim and --projection none, "
            "or use a transfer or --symmetric"
        )
    if isinstance(teacher, OnlineTeacher) and model.spec.takes_vectors:
        heads.check_input(teacher.spec, CachedVectors(manifest), head=teaching.teacher)
    unit = _is_normalized(options, teaching)
    metric = "cosine" if unit else "euclidean"
    declared = teacher.space if asymmetric and metric == teacher.metric else ""
    model.spec = dataclasses.replace(
        model.spec, normalize=unit, metric=metric, teacher_space=declared
    )
    return model


def _is_normalized(options: TrainingOptions, teaching: TeacherOptions) -> bool:
    """Return whether the student normalises: unless all losses on vectors want raw ones."""
    if teaching.normalize is not None:
        return teaching.normalize
    on_vectors = [loss for loss in options.losses if trains_embeddings(loss)]
    raw = [is_transfer(loss) and loss.declared.takes_raw for loss in on_vectors]
    return not raw or not all(raw)
