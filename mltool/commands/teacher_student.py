"""A teacher and a student that fit each other, for what a distillation was asked for."""

import dataclasses
import os

import timm
import torch

from mltool.commands import training_setup
from mltool.commands.request import DistillRequest
from mltool.engine import device as devices
from mltool.engine.teachers import CachedTeacher, OnlineTeacher, is_file_of_vectors
from mltool.errors import InputError, UsageError
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.models.features import STAGES
from mltool.models.source import open_model
from mltool.options import choices
from mltool.options.choices import (
    has_batch_pairs,
    is_transfer,
    takes_vectors,
    transfer_needs,
    transfer_takes_raw,
)


def of_maps(request: DistillRequest) -> str | None:
    """The first loss that compares feature maps, as an option, if there is one."""
    for text in request.run.loss:
        if is_transfer(text) and "maps" in transfer_needs(text):
            return f"--loss {text}"
    return None


def refuse_weights(request: DistillRequest, manifest: Manifest) -> None:
    """Raise UsageError where a loss would ignore the weights of the images."""
    for text in request.run.loss if "weight" in manifest.columns else ():
        if is_transfer(text) or takes_vectors(text):
            raise UsageError(
                f"--loss {text} has no pairs and cannot weight images; leave out the column "
                "`weight` or use another --loss"
            )


def needs_labels(request: DistillRequest) -> bool:
    return request.tuples.mining != "none" or any(
        not is_transfer(text)
        and choices.needs_labels(text, request.positives, symmetric=request.symmetric)
        for text in request.run.loss
    )


def is_asymmetric(request: DistillRequest) -> bool:
    """Whether the student's vectors are compared with the teacher's."""
    losses = [text for text in request.run.loss if not is_transfer(text)]
    return not request.symmetric and any(map(has_batch_pairs, losses))


def stages_of(request: DistillRequest) -> int | None:
    """How many stages are listened to, 0 for the pooled features alone, None for vectors alone."""
    wanted = [transfer_needs(text) for text in request.run.loss if is_transfer(text)]
    if any("maps" in needs for needs in wanted):
        return STAGES if request.stages is None else request.stages
    if request.stages is not None:
        raise UsageError("--stages is for transfers of feature maps: fitnet, attention")
    return 0 if any("penultimate" in needs for needs in wanted) else None


def teacher_of(request: DistillRequest, device: torch.device) -> CachedTeacher | OnlineTeacher:
    """The teacher. Raises UsageError where the losses or the batches need another kind of it."""
    transfers = any(map(is_transfer, request.run.loss))
    if not (
        transfers or is_asymmetric(request) or request.tuples.mining == "hard" or request.neighbors
    ):
        raise UsageError("nothing is learned from the teacher like this; use `mltool train`")
    stages = stages_of(request)
    if not os.path.exists(request.teacher) and timm.is_model(request.teacher):
        raise UsageError(f"no file {request.teacher}; the backbone is timm:{request.teacher}")
    if is_file_of_vectors(request.teacher):
        if request.teacher_weights is not None:
            raise UsageError("--teacher-weights is for a backbone; these are embeddings")
        if stages is not None:
            raise UsageError(
                f"--teacher {request.teacher} holds vectors, but this --loss needs the features of "
                "the network itself; name the checkpoint"
            )
        return CachedTeacher(request.teacher)
    if request.tuples.mining != "none" or request.neighbors is not None:
        raise UsageError(
            "--mining and --neighbors need the teacher's vectors of all images; embed them, and "
            "name that file as --teacher"
        )
    if request.teacher_weights is not None and not request.teacher.startswith("timm:"):
        raise UsageError("--teacher-weights is for timm:NAME; a checkpoint has its own")
    crop = training_setup.crop_of(request.run)
    source = open_model(
        request.teacher,
        weights=request.teacher_weights,
        pooling=None,
        image_size=crop if request.teacher.startswith("timm:") else None,
        resize=None,
        seed=request.run.seed,
    )
    precision = devices.precision(request.run.precision, device, training=True)
    teacher = OnlineTeacher(source, device=device, precision=precision, stages=stages)
    teacher.report(None if request.run.keep_aspect else crop)
    return teacher


def student_of(request: DistillRequest, teacher: CachedTeacher | OnlineTeacher) -> Embedder:
    """The student to start from, as long as its teacher where they are compared."""
    asymmetric = is_asymmetric(request)
    if asymmetric and teacher.metric != "cosine":
        raise InputError(
            f"{request.teacher}: these vectors are compared by {teacher.metric}, but a student's "
            "with its teacher's by cosine; use a transfer or --symmetric"
        )
    model = training_setup.build_model(request.run, usual_dim=teacher.dim if asymmetric else None)
    if asymmetric and model.spec.dim != teacher.dim:
        raise UsageError(
            f"the student's vectors would be {model.spec.dim}-d, but {request.teacher} has "
            f"{teacher.dim}-d ones to compare them with; leave out --dim and --projection none, "
            "or use a transfer or --symmetric"
        )
    unit = _is_normalized(request)
    metric = "cosine" if unit else "euclidean"
    declared = teacher.space if asymmetric and metric == teacher.metric else ""
    model.spec = dataclasses.replace(
        model.spec, normalize=unit, metric=metric, teacher_space=declared
    )
    return model


def _is_normalized(request: DistillRequest) -> bool:
    """Whether embeddings get unit length: not if only transfers of raw vectors say otherwise."""
    if request.normalize is not None:
        return request.normalize
    vectors = [
        text
        for text in request.run.loss
        if not is_transfer(text) or not transfer_needs(text) & {"maps", "penultimate"}
    ]
    return not vectors or not all(is_transfer(t) and transfer_takes_raw(t) for t in vectors)
