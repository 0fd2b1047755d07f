"""Teachers: the vectors that a student learns from.

A teacher is no part of the objective: it is never trained, moved, saved or counted with it.
"""

import logging
import os
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from mltool.engine.data import Batch
from mltool.engine.device import autocast
from mltool.errors import InputError
from mltool.files import canonical_json, embeddings, history, safe_h5, shards
from mltool.files.cached_vectors import read_finite
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings
from mltool.files.names import check_unique, examples, find
from mltool.models.features import FeatureHooks
from mltool.models.source import Source

logger = logging.getLogger(__name__)

Inputs = tuple[tuple[str, str, str], ...]  # (option, path, digest) for the history


class Teacher(Protocol):
    """Any teacher, cached or online."""

    dim: int
    metric: str  # by which its vectors are compared
    space: str  # names its vector space, "" = unknown
    inputs: Inputs
    history: history.History
    hooks: FeatureHooks | None  # at the network, where one is asked for features

    def embed_batch(self, batch: Batch) -> Tensor:
        """Return vectors [B, dim] of a batch, float32 on its device, without gradient.

        They have unit length if they are compared by cosine.
        """
        ...


class CachedTeacher:
    """Vectors in embeddings files, joined to an image list by name; only rows in use are read.

    Of a file with several views of each image, draw d of an image has the vector of view d modulo
    their number, `augmentation` is the (component text, seed) that they were made with, and
    `preprocess` what else was done to the pixels. Raises InputError where files do not fit each
    other. `join` comes before use.
    """

    hooks: FeatureHooks | None = None

    def __init__(self, text: str) -> None:
        paths = shards.expand(text)
        headers = [embeddings.read_header(path) for path in paths]
        first = headers[0]
        shards.check_match(paths, headers, of_equal_pixels=True)
        self.metric, self.space, self.views = first.metric, first.space, first.views
        self.dim = first.vectors.shape[1] // self.views
        self.history = history.merge(*(header.history for header in headers))
        digests = [header.digest for header in headers]
        digest = digests[0] if len(digests) == 1 else canonical_json.digest(digests)
        self.inputs: Inputs = (("--teacher", text, digest),)
        self._text, self._names = text, np.concatenate([header.names for header in headers])
        if len(headers) > 1:
            check_unique(self._names, text)
        self._rows = np.empty(0, np.int64)
        # a view of an image is a row of its own
        self._vectors = ConcatenatedRows(
            [header.vectors.reshape(-1, self.dim) for header in headers]
        )
        self.preprocess = _preprocess(first)
        self.augmentation = _augmentation(paths[0], self.preprocess) if self.views > 1 else None

    def join(self, wanted: np.ndarray) -> None:
        """Find the images of a list by their names [N]. Raises InputError for missing ones."""
        self._rows = find(self._names, wanted)
        missing = wanted[self._rows < 0]
        if len(missing):
            raise InputError(
                f"{self._text} lacks {len(missing):,} of {len(wanted):,} images "
                f"({examples(missing)}); embed the whole list with the teacher"
            )
        logger.info(
            "teacher: %s, %d-d, all %s images found among %s vectors",
            *(self._text, self.dim, f"{len(wanted):,}", f"{len(self._names):,}"),
        )

    def embed_batch(self, batch: Batch) -> Tensor:
        """Return the vectors [B, dim] of the images, or views, of a batch."""
        vectors = self.read_rows(batch.rows.numpy(), batch.draws.numpy())
        return vectors.to(batch.labels.device)

    def map_vectors(self) -> ConcatenatedRows:
        """Return the vectors [N, dim] of the image list, not read yet; first views."""
        stored = self._rows * self.views
        is_whole = np.array_equal(stored, np.arange(len(self._vectors)))
        return self._vectors if is_whole else ConcatenatedRows(self._vectors.matrices, stored)

    def read_rows(self, rows: np.ndarray, draws: np.ndarray | int = 0) -> Tensor:
        """Read the vectors [n, dim] of rows [n] of the image list, on the CPU."""
        read = read_finite(
            self._vectors,
            self._rows[rows] * self.views + draws % self.views,
            describe=lambda broken: (
                f"{self._text}: the vector of {examples(self._names[self._rows[rows[broken]]])}"
            ),
        )
        vectors = torch.from_numpy(read)
        return functional.normalize(vectors, out=vectors) if self.metric == "cosine" else vectors


class OnlineTeacher:
    """A network that sees the very crops of the student, in evaluation mode and without gradient.

    With `stages` it also keeps its last feature maps and its pooled features, see `hooks`.
    """

    def __init__(
        self, source: Source, *, device: torch.device, precision: str, stages: int | None
    ) -> None:
        self._model = source.model.to(device).to(memory_format=torch.channels_last).eval()
        self.spec = spec = self._model.spec
        self.dim, self.metric, self.space = spec.dim, spec.metric, source.space
        self.inputs, self.history = _as_teacher(source.inputs), source.history
        self.hooks = FeatureHooks(self._model, stages) if stages is not None else None
        self._device, self._precision = device, precision

    def embed_batch(self, batch: Batch) -> Tensor:
        """Embed the inputs of a batch, [B, dim]."""
        inputs, shape = batch.inputs, self._model.spec.input_shape
        # whole images stay as large as the student sees them
        if isinstance(inputs, Tensor) and inputs.shape[1:] != shape:
            inputs = functional.interpolate(
                inputs.float(), shape[1:], mode="bilinear", antialias=True
            )
        with torch.no_grad(), autocast(self._device, self._precision):
            vectors = self._model(inputs, raw=True)
        return functional.normalize(vectors) if self.metric == "cosine" else vectors

    def report(self, crop: int | None) -> None:
        """Log what this teacher sees of a student's crops of `crop` pixels, or whole inputs."""
        spec = self.spec
        whole = "vectors" if spec.takes_vectors else "whole images"
        sees = "the student's crops" if crop is not None else f"the student's {whole}"
        if crop not in (None, spec.crop):
            sees += f", resized from {crop} to {spec.crop} px"
        logger.info("teacher: %s, %d-d, online; it sees %s", spec.backbone, spec.dim, sees)


def is_file_of_vectors(text: str) -> bool:
    """Return whether `--teacher` names embeddings: files, a folder or a glob, but no model."""
    if text.startswith("timm:") or text.endswith(".safetensors"):
        return False
    return text.endswith(".h5") or not os.path.isfile(text) or safe_h5.is_hdf5(text)


def _preprocess(file: Embeddings) -> dict:
    try:
        how = canonical_json.from_json(file.preprocess)
    except ValueError:
        how = None
    return how if isinstance(how, dict) else {}


def _augmentation(path: str, how: dict) -> tuple[str, int]:
    augment, seed = how.get("augment"), how.get("seed")
    if not isinstance(augment, str) or not isinstance(seed, int):
        raise InputError(f"{path} does not say how its views were made; embed it again")
    return augment, seed


def _as_teacher(inputs: Inputs) -> Inputs:
    """Return what made a model, as options of `distill`."""
    options = {"model": "--teacher", "--weights": "--teacher-weights"}
    return tuple((options[option], path, digest) for option, path, digest in inputs)
