"""Which images make up which batch, as a pure function of (seed, epoch, step).

A batch is a list of (index, draw): `draw` tells how often this image was taken before, so that
its augmentation can be a pure function of (seed, name, draw) and is never the same twice. Since
nothing is remembered, resuming needs no sampler state and any number of workers or ranks sees the
same batches.
"""

import functools
import math
from collections.abc import Callable
from typing import Protocol

import numpy as np

from mltool.errors import InputError, UsageError

Rows = list[tuple[int, int]]  # (row of the image list, draw)


class Sampler(Protocol):
    """What batches come from."""

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        ...

    @property
    def size(self) -> int:
        """Images per batch, over all ranks."""
        ...

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step; each rank takes an equal part, in order."""
        ...

    def summary(self) -> str:
        """A batch in words, before the word images."""
        ...


@functools.lru_cache(maxsize=1024)
def _shuffled(count: int, *key: int) -> np.ndarray:
    return np.random.default_rng(list(key)).permutation(count)


def prime_stride(size: int) -> int:
    """Return the least prime from `size` and 97 on, the step between draws of groups of `size`.

    Being prime, it takes every position of a group through all views of a teacher in turn.
    """
    distance = max(size, 97)
    while any(distance % divisor == 0 for divisor in range(2, math.isqrt(distance) + 1)):
        distance += 1
    return distance


class ClassBalanced:
    """P classes x K images per batch.

    All classes are shuffled and dealt in groups of P; when fewer than P are left the next pass
    begins, so no class stands twice in a batch. Inside a class the images are shuffled and dealt
    in groups of K in the same way, so no image stands twice in a batch, unless its class has
    fewer than K images and `small_classes` is `resample`. An epoch is images / (P K) batches.
    """

    def __init__(
        self,
        labels: np.ndarray,
        *,
        classes_per_batch: int,
        images_per_class: int,
        seed: int,
        small_classes: str = "resample",
    ) -> None:
        if min(classes_per_batch, images_per_class) < 1:
            raise UsageError("a batch needs at least one class and one image of it")
        order = np.argsort(labels, kind="stable")
        present, starts = np.unique(labels[order], return_index=True)
        members = np.split(order, starts[1:]) if len(present) else []
        if present.size and present[0] < 0:  # the unlabelled belong to no class
            members = members[1:]
        self.left_out = [m for m in members if len(m) < images_per_class]
        if small_classes == "skip":
            members = [m for m in members if len(m) >= images_per_class]
        elif small_classes == "error" and self.left_out:
            raise InputError(
                f"{len(self.left_out)} classes have fewer than {images_per_class} images; use "
                f"--small-classes skip or resample, or a smaller --images-per-class"
            )
        if len(members) < 2:
            raise InputError(
                f"{len(members)} classes have enough images, metric learning needs two at least; "
                "lower --images-per-class, or take a list with more labels"
            )
        if classes_per_batch > len(members):
            raise UsageError(
                f"{classes_per_batch} classes per batch, but the data has {len(members)} usable "
                f"classes; lower --classes-per-batch"
            )
        self.members, self.seed = members, seed
        self.classes_per_batch, self.images_per_class = classes_per_batch, images_per_class
        self.images = sum(len(m) for m in members)

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.classes_per_batch * self.images_per_class

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, self.images // self.size)

    def summary(self) -> str:
        """A batch in words."""
        return f"{self.classes_per_batch} x {self.images_per_class}"

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step."""
        groups = len(self.members) // self.classes_per_batch
        visit, group = divmod(epoch * self.steps + step, groups)
        classes = _shuffled(len(self.members), self.seed, visit)
        start = group * self.classes_per_batch
        chosen = classes[start : start + self.classes_per_batch]
        return [pair for c in chosen for pair in self._images(int(c), visit)]

    def _images(self, number: int, visit: int) -> Rows:
        """K images of one class at its visit-th turn."""
        rows, wanted = self.members[number], self.images_per_class
        if len(rows) < wanted:
            times = -(-wanted // len(rows))
            order = self._order(number, visit)
            picks = [(int(rows[i]), visit * times + t) for t in range(times) for i in order]
            return picks[:wanted]
        deal, hand = divmod(visit, len(rows) // wanted)
        order = self._order(number, deal)
        return [(int(rows[i]), deal) for i in order[hand * wanted : (hand + 1) * wanted]]

    def _order(self, number: int, deal: int) -> np.ndarray:
        # from 1: a key that ends in 0 is the shorter key to numpy, here that of the classes' order
        return _shuffled(len(self.members[number]), self.seed, deal, 1 + number)


class Shuffled:
    """Random batches without a look at labels: every epoch is a new order of all images.

    An epoch is images / size batches; what is left over differs from epoch to epoch. Lists
    smaller than a batch give smaller batches.
    """

    def __init__(self, images: int, *, size: int, seed: int, processes: int = 1) -> None:
        self.size = min(size, images // processes * processes)
        if not self.size:
            raise InputError(f"{images} images are not enough for {processes} processes")
        self.images, self.seed = images, seed

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.images // self.size

    def summary(self) -> str:
        """A batch in words."""
        return f"{self.size} random"

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step."""
        order = _shuffled(self.images, self.seed, epoch)
        return [(int(row), epoch) for row in order[step * self.size : (step + 1) * self.size]]


class Neighborhoods:
    """Random images, each with its nearest ones, as a teacher sees them, in one batch.

    `find` gives rows [N, K - 1] of the list, the nearest first; it is called for the first batch
    alone, as it may take long. Every epoch is a new order of all images; every batch has size / K
    of them. Images near to several of these stand in the batch several times, each time with
    another draw.

    Kim et al., Self-Taught Metric Learning without Labels, CVPR 2022.
    """

    def __init__(
        self,
        images: int,
        find: Callable[[], np.ndarray],
        *,
        each: int,
        size: int,
        seed: int,
        processes: int = 1,
    ) -> None:
        if each > images:
            raise UsageError(f"{images} images do not have {each - 1} others; lower --neighbors")
        queries = min(size // each, images) // processes * processes
        if not queries:
            raise UsageError(
                f"a batch of {size} images does not hold {each} for each of {processes} "
                "processes; raise --batch-size or lower --neighbors"
            )
        self.images, self.each, self.seed, self.find = images, each, seed, find
        self.size = queries * each
        self.stride = prime_stride(self.size)

    @functools.cached_property
    def nearest(self) -> np.ndarray:
        """Rows [N, K - 1], found now if they are not yet."""
        return self.find()

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, self.images // self.size)

    def summary(self) -> str:
        """A batch in words."""
        return f"{self.size // self.each} x {self.each} near"

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step."""
        number, queries = epoch * self.steps + step, self.size // self.each
        deal, hand = divmod(number, self.images // queries)
        order = _shuffled(self.images, self.seed, deal)
        chosen = order[hand * queries : (hand + 1) * queries]
        rows = np.column_stack([chosen, self.nearest[chosen]]).ravel()
        return [(int(row), number * self.stride + place) for place, row in enumerate(rows)]


class Views:
    """The batches of another sampler with every image several times, each with its own draw."""

    def __init__(self, sampler: Sampler, views: int) -> None:
        self.sampler, self.views = sampler, views

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.views * self.sampler.size

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.sampler.steps

    def summary(self) -> str:
        """A batch in words."""
        return f"{self.views} views of {self.sampler.summary()}"

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step."""
        items, count = self.sampler.batch(epoch, step), self.views
        return [(row, draw * count + view) for view in range(count) for row, draw in items]


def sizes(
    classes: int,
    *,
    batch_size: int,
    classes_per_batch: int | None,
    images_per_class: int | None,
    processes: int = 1,
) -> tuple[int, int]:
    """P and K for a batch size: K = 4 unless given; fewer classes than P get more images each.

    A P that is not given is two at least, for without negatives nothing is learned, and such that
    the batch divides among the processes. Raises UsageError when P x K as given does not.
    """
    k = images_per_class
    if classes_per_batch is not None:
        p = classes_per_batch
        k = max(1, batch_size // max(1, p)) if k is None else k
    else:
        p = max(min(2, classes), min(classes, batch_size // max(1, k or 4)))
        k = max(1, batch_size // p) if k is None else k
        while p > 2 and p * k % processes:
            p -= 1
    if p * k % processes:
        raise UsageError(
            f"a batch of {p} x {k} images does not divide among {processes} processes; choose "
            f"--classes-per-batch and --images-per-class accordingly"
        )
    return p, k
