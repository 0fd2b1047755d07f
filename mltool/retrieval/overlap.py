"""Which images of one list stand in another: the same, or near duplicates of them.

Benchmarks leak: images of a test set stand in the pools that models learn from, exactly or scaled
and compressed again (Barz, Denzler, "Do We Train on Test Data?", Journal of Imaging 2020).
"""

import itertools
import logging
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError
from mltool.exact.knn import Resources, find_neighbors
from mltool.exact.vector_set import VectorSet, make_vector_sets
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.files.names import find
from mltool.retrieval import fingerprints
from mltool.retrieval.query_gallery import check_comparable

logger = logging.getLogger(__name__)

NEAR = 0.98  # cosine from which on two images are near duplicates
SAME_VECTOR = 1 - 1e-6  # and from which on two vectors are those of one image, but for rounding
BLOCKS = 64  # blocks of fingerprints compared at a time, some 130 MB


@dataclass(frozen=True, eq=False)
class Overlap:
    """Which of N images stand in another list of M."""

    same: np.ndarray  # [N] bool: equal pixels, or vectors that are equal but for rounding
    near: np.ndarray  # [N] bool: near duplicates of an image there, and not the same as any
    matches: np.ndarray  # [N] int64, the row there that is the same or nearest, -1 without one
    unreadable: int = 0  # images of either list that could not be compared

    @property
    def mask(self) -> np.ndarray:
        """The images [N] that are the same as one there or near to it."""
        return self.same | self.near

    def as_counts(self) -> dict[str, int]:
        """Return the two numbers of overlapping images, for records."""
        return {"overlap_same": int(self.same.sum()), "overlap_near": int(self.near.sum())}

    def __str__(self) -> str:
        same, near = self.as_counts().values()
        text = f"{same:,} of {len(self.same):,} images are the same, {near:,} near duplicates"
        return text + (f" ({self.unreadable:,} could not be read)" if self.unreadable else "")


def find_image_overlap(
    images: Manifest, others: Manifest, *, resources: Resources | None = None
) -> Overlap:
    """Find the images that also stand in `others`, by their pixels.

    The same: equal decoded pixels. Near: centred 32 px grey thumbnails with a cosine of at least
    0.98. Images are streamed; the fingerprints of `others` are in memory, 2 KB each. Unreadable
    ones overlap with nothing and are counted. Raises InputError if no image of a list can be read,
    ResourceError if `others` do not fit into memory.
    """
    resources = resources or Resources()
    fingerprints.check_memory(len(others), resources.max_memory)
    theirs = fingerprints.join(
        fingerprints.read_fingerprints(others, label="check against", threads=resources.threads)
    )
    _warn(theirs.reasons, len(others))
    stream = fingerprints.read_fingerprints(images, label="check", threads=resources.threads)
    matched, reasons = [], list[str]()
    while blocks := list(itertools.islice(stream, BLOCKS)):
        ours = fingerprints.join(blocks)
        reasons += ours.reasons
        matched.append(_match_images(ours, theirs, resources))
    _warn(reasons, len(images))
    return Overlap(
        same=np.concatenate([each.same for each in matched]),
        near=np.concatenate([each.near for each in matched]),
        matches=np.concatenate([each.matches for each in matched]),
        unreadable=len(reasons) + len(theirs.reasons),
    )


def find_vector_overlap(
    embeddings: Embeddings, others: Embeddings, *, resources: Resources | None = None
) -> Overlap:
    """Find the images that also stand in `others`, by vectors of one model.

    The same: a cosine of at least 1 - 1e-6, near: of at least 0.98. Raises InputError for vectors
    of different models, NotFiniteError for NaN.
    """
    check_comparable(embeddings, others, any_model=False)
    left, right = make_vector_sets(
        (embeddings.vectors, embeddings.names), (others.vectors, others.names), metric="cosine"
    )
    nearest, scores = _find_nearest(left, right, resources or Resources())
    same, near = scores >= SAME_VECTOR, scores >= NEAR
    return Overlap(same, near & ~same, np.where(near, nearest, -1))


def _match_images(
    ours: fingerprints.Fingerprints, theirs: fingerprints.Fingerprints, resources: Resources
) -> Overlap:
    rows = find(theirs.digests, ours.digests)
    same = (rows >= 0) & (ours.digests != b"")
    left, right = make_vector_sets(
        (ours.thumbnails, ours.digests), (theirs.thumbnails, theirs.digests), metric="cosine"
    )
    nearest, scores = _find_nearest(left, right, resources)
    near = (scores >= NEAR) & ~same
    return Overlap(same, near, np.where(same, rows, np.where(near, nearest, -1)))


def _find_nearest(
    left: VectorSet, right: VectorSet, resources: Resources
) -> tuple[np.ndarray, np.ndarray]:
    """Return the nearest row and its cosine [n], ties to the first name."""
    hits = find_neighbors(left, right, k=1, self_rows=None, resources=resources)
    return hits.rows[:, 0], hits.scores[:, 0]


def _warn(reasons: Sequence[str], count: int) -> None:
    """Report unreadable images as a warning. Raises InputError where none can be read."""
    if len(reasons) == count:
        raise InputError(f"none of {count:,} images can be read ({reasons[0]}); nothing compared")
    if reasons:
        logger.warning("%d of %d images are not compared: %s", len(reasons), count, reasons[0])
