"""Divide training images into clusters, one for each learner.

Sanakoyeu, Tschernezki, Buechler, Ommer, "Divide and Conquer the Embedding Space for Metric
Learning", CVPR 2019; with doubling: Sanakoyeu, Ma, Tschernezki, Ommer, "Improving Deep Metric
Learning by Divide and Conquer", TPAMI 2021.

The order of the steps, which `divide` follows:

1. cluster   all images into K clusters; those without a label take part.
2. merge     a cluster with too few classes of two images into the one with the nearest mean.
3. match     the clusters with those of the split before, by the most images in common.
4. double    every cluster P into 2P and 2P + 1, or 2P + 1 alone if a half had too few classes.
5. set aside images that are alone in their class inside their cluster: they have no positive.

Merging comes before matching, so that a cluster that vanishes claims no learner. A number that no
cluster has is a learner without images. The first split uses the highest number K - 1 in any case,
as does a cluster of that number when it is doubled: readers count learners by the highest number.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import cast

import numpy as np

from mltool.errors import InputError
from mltool.exact.blocks import split_rows
from mltool.exact.vector_set import Matrix
from mltool.files.concatenated_rows import ConcatenatedRows, release

_BLOCK = 2**13  # rows in memory at a time, in float64
_TINY = 1e-300  # keeps a division by the length of zeros finite
_FEWEST = 2  # images of a class: one without another has no positive

# (rows [n] of the images to divide, how many clusters) -> cluster of each [n]
Divider = Callable[[np.ndarray, int], np.ndarray]


@dataclass(frozen=True, eq=False)
class Split:
    """The cluster of each of N images."""

    clusters: np.ndarray  # [N] int64 from 0 to count - 1, -1 = set aside
    count: int  # learners, some perhaps without images
    counts: Mapping[str, int]  # what the steps did


@dataclass(frozen=True, eq=False)
class _Images:
    vectors: Matrix
    labels: np.ndarray  # [N] int64, classes numbered from 0, -1 = unknown
    metric: str
    min_classes: int
    counts: dict[str, int] = field(default_factory=dict)

    def count_classes(self, rows: np.ndarray, clusters: np.ndarray, count: int) -> np.ndarray:
        """Count the classes with two images or more inside each cluster: [count].

        `rows` [n] are the images that count, `clusters` [n] are theirs.
        """
        classes = self.labels.max(initial=0) + 1
        labelled = self.labels[rows] >= 0
        cells = clusters[labelled] * classes + self.labels[rows[labelled]]
        cells, sizes = np.unique(cells, return_counts=True)
        return np.bincount(cells[sizes >= _FEWEST] // classes, minlength=count)


def divide(
    vectors: Matrix,
    labels: np.ndarray,
    *,
    count: int,
    divider: Divider,
    metric: str,
    min_classes: int,
    previous: np.ndarray | None = None,
    double: bool = False,
) -> Split:
    """Divide images into clusters in the order of the steps above.

    Args:
        vectors: [N, D].
        labels: classes [N], -1 where unknown.
        count: number of clusters K.
        divider: forms clusters of some of the rows.
        metric: of the vectors; of cosine the means are those of rows of unit length.
        min_classes: how many classes of two images every cluster must have.
        previous: clusters before [N], -1 where an image had none.
        double: whether 2 K clusters are made.

    Raises InputError where all images together have too few classes, and for a previous cluster
    above K - 1.
    """
    classes, numbers = np.unique(labels, return_inverse=True)  # any numbers may stand for classes
    numbers = numbers - np.count_nonzero(classes < 0)
    images = _Images(vectors, numbers, metric, min_classes)
    clusters = divider(np.arange(len(labels)), count).astype(np.int64)
    clusters = _merge_small(images, clusters, count)
    before = previous
    if previous is not None:
        clusters = match(clusters, previous, count)
    else:
        clusters[clusters == clusters.max()] = count - 1
    if double:
        clusters = _halve(images, clusters, count, divider)
        before = None if previous is None else 2 * previous
    clusters = _set_aside(images, clusters)
    if before is not None:
        images.counts.update(_count_kept(clusters // 2 * 2 if double else clusters, before))
    return Split(clusters, 2 * count if double else count, images.counts)


def match(clusters: np.ndarray, previous: np.ndarray, count: int) -> np.ndarray:
    """Return clusters [N] renumbered so that most images keep the number that they had before.

    The sum of the overlaps is maximal (Hungarian method), which is the same as a minimal sum of the
    symmetric differences. Numbers of both lie below `count`; images of number -1 do not count.
    """
    from scipy.optimize import linear_sum_assignment

    if previous.max(initial=-1) >= count:
        raise InputError(
            f"the split before has a cluster {previous.max()}, but {count} clusters are wanted; "
            f"take -k {previous.max() + 1}"
        )
    shared = (clusters >= 0) & (previous >= 0)
    cells = clusters[shared] * count + previous[shared]
    overlap = np.bincount(cells, minlength=count * count).reshape(count, count)
    new, old = linear_sum_assignment(overlap, maximize=True)
    number = np.full(count + 1, -1)  # the last is that of -1
    number[new] = old
    return number[clusters]


def deal_classes(labels: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Assign classes [N], each as a whole, to `count` clusters [N] in turn, in random order.

    Whole classes keep their positives, so that against clusters of vectors only the likeness of
    what is in one cluster is lost.
    """
    classes, numbers = np.unique(labels, return_inverse=True)
    order = np.random.default_rng(seed).permutation(len(classes))
    return order[numbers] % count


def _merge_small(images: _Images, clusters: np.ndarray, count: int) -> np.ndarray:
    """Merge each cluster with too few classes, that with the fewest first, into the nearest."""
    clusters, merged, means = clusters.copy(), 0, None
    rows = np.arange(len(clusters))
    while True:
        sizes = np.bincount(clusters, minlength=count)
        present = np.flatnonzero(sizes)
        classes = images.count_classes(rows, clusters, count)
        smallest = present[classes[present].argmin()]
        if classes[smallest] >= images.min_classes:
            break
        if len(present) == 1:
            raise InputError(
                f"all images together have {classes[smallest]} classes of two images or more, "
                f"fewer than --min-classes {images.min_classes}; lower it, or embed a labelled list"
            )
        means = _average(images, clusters, count) if means is None else means
        others = present[present != smallest]
        nearest = others[_measure_distances(images, means[others], means[smallest]).argmin()]
        weights = sizes[[nearest, smallest]]
        means[nearest] = weights @ means[[nearest, smallest]] / weights.sum()
        clusters[clusters == smallest] = nearest
        merged += 1
    images.counts["merged"] = merged
    return clusters


def _average(images: _Images, clusters: np.ndarray, count: int) -> np.ndarray:
    """Average the rows of each cluster: [count, D] float64, zeros where a cluster is empty."""
    sums = np.zeros((count, images.vectors.shape[1]))
    for rows in split_rows(len(clusters), _BLOCK):
        block = images.vectors[rows].astype(np.float64)
        if images.metric == "cosine":
            block = _normalise(block)
        sums += (clusters[rows] == np.arange(count)[:, None]) @ block
        release(images.vectors)
    return sums / np.maximum(np.bincount(clusters, minlength=count), 1)[:, None]


def _measure_distances(images: _Images, means: np.ndarray, mean: np.ndarray) -> np.ndarray:
    """Measure how far each of means [n, D] is from a mean [D], for cosine by the angle."""
    if images.metric == "cosine":
        means, mean = _normalise(means), _normalise(mean)
    return np.linalg.norm(means - mean, axis=-1)


def _normalise(rows: np.ndarray) -> np.ndarray:
    """Return rows [..., D] of unit length; zeros stay zeros."""
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), _TINY)


def _halve(images: _Images, clusters: np.ndarray, count: int, divider: Divider) -> np.ndarray:
    """Cut each cluster P into 2P and 2P + 1, unless a half would have too few classes."""
    result, whole = 2 * clusters, 0
    for cluster in np.unique(clusters).tolist():
        rows = np.flatnonzero(clusters == cluster)
        halves = divider(rows, 2) if len(rows) >= 2 else np.zeros(len(rows), np.int64)
        if images.count_classes(rows, halves, 2).min() >= images.min_classes:
            result[rows] += halves
        else:
            result[rows] += 1
            whole += 1
    images.counts["not_doubled"] = whole
    return result


def _set_aside(images: _Images, clusters: np.ndarray) -> np.ndarray:
    """Return clusters [N] with -1 for images that are alone in their class in their cluster."""
    cells = clusters * (images.labels.max(initial=0) + 2) + images.labels + 1
    _, cell, sizes = np.unique(cells, return_inverse=True, return_counts=True)
    alone = (sizes[cell] < _FEWEST) | (images.labels < 0)
    images.counts["set_aside"] = int(alone.sum())
    return np.where(alone, -1, clusters)


def _count_kept(clusters: np.ndarray, before: np.ndarray) -> dict[str, int]:
    """Count the images that had a cluster and have one, and those whose number is the same."""
    both = (clusters >= 0) & (before >= 0)
    return {"in_both": int(both.sum()), "kept": int((clusters == before)[both].sum())}


def cluster_rows(
    vectors: Matrix, rows: np.ndarray, cluster: Callable[[Matrix], tuple[np.ndarray, np.ndarray]]
) -> np.ndarray:
    """Return the clusters [n] that a clusterer forms of some rows, which are not copied."""
    if len(rows) == len(vectors):
        return cluster(vectors)[0]
    return cluster(ConcatenatedRows([cast(np.ndarray, vectors)], rows))[0]
