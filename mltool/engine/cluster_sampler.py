"""Batches inside one cluster of the images, the clusters in turn: what learners are trained on.

Sanakoyeu et al., Divide and Conquer the Embedding Space for Metric Learning, CVPR 2019.

With two clusters of 60 and 20 images, and batches of 20, an epoch has 80 / 20 = 4 steps, as it has
without clusters: 0 1 0 1. Every learner has as many turns as any other, so that images of small
clusters are seen more often. The released code takes as many rounds as the largest cluster has
batches, here 3: 0 1 0 1 0 1.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from mltool.engine.data import LEARNER
from mltool.engine.samplers import ClassBalanced, Rows, Sampler
from mltool.errors import InputError

WHOLE = -1  # instead of a learner: the whole vector


@dataclass(frozen=True)
class Phases:
    """From which epoch the whole vector learns, and from which all images are one cluster.

    None = never. All images being one cluster, the whole vector learns.
    """

    full_from: int | None = None
    merge_from: int | None = None

    def is_merged(self, epoch: int) -> bool:
        """Return whether all images are one cluster."""
        return self.merge_from is not None and epoch >= self.merge_from

    def has_parts(self, epoch: int) -> bool:
        """Return whether parts of the vector learn, each from its cluster."""
        return not self.is_merged(epoch) and (self.full_from is None or epoch < self.full_from)


class ClustersInTurn(Sampler):
    """P x K images of one cluster per batch; learner k has cluster k.

    `every` is the sampler of all images: its steps are an epoch, its P and K those of a batch. A
    cluster with fewer classes than P gives more images of each, as long as the batch gets no
    larger. Images of cluster -1 are seen only when all are one cluster. A cluster without images
    has no turn. Raises InputError for a cluster whose images have fewer than two classes.
    """

    def __init__(
        self,
        every: ClassBalanced,
        labels: np.ndarray,
        clusters: np.ndarray,
        *,
        phases: Phases,
        small_classes: str = "resample",
        processes: int = 1,
    ) -> None:
        self.every, self.phases = every, phases
        self.learners = [int(number) for number in np.unique(clusters) if number >= 0]
        self.samplers: Mapping[int, ClassBalanced] = {
            learner: _balance_cluster(
                np.where(clusters == learner, labels, -1),
                every,
                learner=learner,
                small_classes=small_classes,
                processes=processes,
            )
            for learner in self.learners
        }

    @property
    def size(self) -> int:
        """Images per batch; a cluster of few classes may have fewer."""
        return self.every.size

    @property
    def steps(self) -> int:
        """Batches per epoch, as many as without clusters."""
        return self.every.steps

    @property
    def small_classes(self) -> int:
        """How many times a class has fewer than its K images in a cluster."""
        return sum(len(each.left_out) for each in self.samplers.values())

    def summary(self) -> str:
        """Describe a batch."""
        return self.every.summary()

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step."""
        if self.phases.is_merged(epoch):
            return self.every.batch(epoch, step)
        turn, index = divmod(epoch * self.steps + step, len(self.learners))
        return self.samplers[self.learners[index]].batch(0, turn)

    def columns(self, epoch: int, step: int) -> dict[str, np.ndarray]:
        """Return the learner of a batch, WHOLE where the whole vector learns."""
        learner = WHOLE
        size = self.every.size
        if not self.phases.is_merged(epoch):
            index = (epoch * self.steps + step) % len(self.learners)
            size = self.samplers[self.learners[index]].size
            learner = self.learners[index] if self.phases.has_parts(epoch) else WHOLE
        return {LEARNER: np.full(size, learner)}


def _balance_cluster(
    labels: np.ndarray, every: ClassBalanced, *, learner: int, small_classes: str, processes: int
) -> ClassBalanced:
    """Return the sampler of one cluster, whose images are those with a label."""
    p, k = every.classes_per_batch, every.images_per_class
    images = np.bincount(labels[labels >= 0])
    is_small = (images > 0) & (images < k)
    if small_classes == "error" and is_small.any():
        raise InputError(
            f"{is_small.sum()} classes have fewer than {k} images in cluster {learner}; use "
            f"--small-classes skip or resample, or a smaller --images-per-class"
        )
    if small_classes == "skip":
        labels = np.where(is_small[labels] & (labels >= 0), -1, labels)
    classes = len(np.unique(labels[labels >= 0]))
    if classes < 2:
        raise InputError(
            f"{classes} classes in cluster {learner} have enough images, a learner needs two at "
            "least; split into fewer clusters, or raise --min-classes of cluster-split"
        )
    if classes < p:
        shared = processes // math.gcd(classes, processes)  # the batch divides among processes
        p, k = classes, max(1, p * k // classes // shared) * shared
    return ClassBalanced(labels, classes_per_batch=p, images_per_class=k, seed=every.seed)
