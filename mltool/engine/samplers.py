"""Which images make up which batch, as a pure function of (seed, epoch, step).

A batch is a list of (row, draw): `draw` tells how often this image was taken before, so that its
augmentation can be a pure function of (seed, name, draw) and is never the same twice. Samplers of
this file remember nothing, so resuming needs no state of theirs and any number of workers or ranks
sees the same batches.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import numpy as np

from mltool.errors import InputError, UsageError

Rows = list[tuple[int, int]]  # (row of the image list, draw)
EmbedRows = Callable[[Sequence[int]], np.ndarray]  # rows -> vectors [n, D] of the present model


class Sampler(ABC):
    """Where batches come from. The methods from `begin` on do nothing unless a sampler gives them.

    `begin` is called before the first batch of an epoch is asked for, and may be called again. If
    the sampler `follows_model`, that is when the epoch before has ended, and what it learned from
    the model is its `state`, saved with the run. Otherwise the batches of several epochs are
    prepared ahead, whatever the model does.
    """

    follows_model = False

    @property
    @abstractmethod
    def steps(self) -> int:
        """Batches per epoch."""

    @property
    @abstractmethod
    def size(self) -> int:
        """Images per batch, over all ranks."""

    @abstractmethod
    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step; each rank takes an equal share, in order."""

    @abstractmethod
    def summary(self) -> str:
        """Describe a batch, before the word images."""

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        """Prepare an epoch; `embed` gives vectors of the present model, in test views."""
        return

    def columns(self, epoch: int, step: int) -> dict[str, np.ndarray]:
        """Return what a batch carries besides its images, [size, ...] by name."""
        return {}

    def state(self) -> dict[str, np.ndarray]:
        """Return what is saved with the run."""
        return {}

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take back a saved state; of none there is nothing to take. Raises ValueError."""
        if state:
            raise ValueError("this sampler has no state")


@functools.lru_cache(maxsize=1024)
def _shuffle(count: int, *key: int) -> np.ndarray:
    return np.random.default_rng(list(key)).permutation(count)


def prime_stride(size: int) -> int:
    """Return the least prime from `size` and 97 on, the step between draws of groups of `size`.

    Being prime, it takes every position of a group through all views of a teacher in turn.
    """
    stride = max(size, 97)
    while any(stride % divisor == 0 for divisor in range(2, math.isqrt(stride) + 1)):
        stride += 1
    return stride


class ClassBalanced(Sampler):
    """P classes x K images per batch.

    All classes are shuffled and cut into groups of P; when fewer than P are left the next pass
    begins, so no class stands twice in a batch. Inside a class the images are shuffled and cut
    into groups of K in the same way, so no image stands twice in a batch, unless its class has
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
        members = _group_by_class(labels)
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
        """Describe a batch."""
        return f"{self.classes_per_batch} x {self.images_per_class}"

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step."""
        groups = len(self.members) // self.classes_per_batch
        pass_index, group = divmod(epoch * self.steps + step, groups)
        order = _shuffle(len(self.members), self.seed, pass_index)
        start = group * self.classes_per_batch
        classes = order[start : start + self.classes_per_batch]
        return [pair for c in classes for pair in self._pick_images(int(c), pass_index)]

    def _pick_images(self, number: int, pass_index: int) -> Rows:
        """Pick K images of one class for a pass over the classes."""
        rows, wanted = self.members[number], self.images_per_class
        if len(rows) < wanted:
            times = -(-wanted // len(rows))
            order = self._order(number, pass_index)
            picks = [(int(rows[i]), pass_index * times + t) for t in range(times) for i in order]
            return picks[:wanted]
        draw, slot = divmod(pass_index, len(rows) // wanted)
        order = self._order(number, draw)
        return [(int(rows[i]), draw) for i in order[slot * wanted : (slot + 1) * wanted]]

    def _order(self, number: int, draw: int) -> np.ndarray:
        # from 1: a key that ends in 0 is the shorter key to numpy, here that of the classes' order
        return _shuffle(len(self.members[number]), self.seed, draw, 1 + number)


def _group_by_class(labels: np.ndarray) -> list[np.ndarray]:
    """Return the rows of each class; the unlabelled (-1) belong to none."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    members = np.split(order, starts[1:]) if len(present) else []
    return members[1:] if present.size and present[0] < 0 else members


class Shuffled(Sampler):
    """Random batches without a look at labels: every epoch is a new order of all images.

    An epoch is images / size batches; what is left over differs from epoch to epoch. Lists
    smaller than a batch give smaller batches.
    """

    def __init__(self, images: int, *, size: int, seed: int, processes: int = 1) -> None:
        self.images, self.seed = images, seed
        self._size = min(size, images // processes * processes)
        if not self._size:
            raise InputError(f"{images} images are not enough for {processes} processes")

    @property
    def size(self) -> int:
        """Images per batch."""
        return self._size

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.images // self.size

    def summary(self) -> str:
        """Describe a batch."""
        return f"{self.size} random"

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step."""
        order = _shuffle(self.images, self.seed, epoch)
        return [(int(row), epoch) for row in order[step * self.size : (step + 1) * self.size]]


class Neighborhoods(Sampler):
    """Random images, each with its nearest ones, as a teacher sees them, in one batch.

    `find_nearest` gives rows [N, K - 1] of the list, the nearest first; it is called once, when
    the first epoch begins, as it may take long. Every epoch is a new order of all images; every
    batch has size / K of them. Images near to several of these stand in the batch several times,
    each time with another draw.

    Kim et al., Self-Taught Metric Learning without Labels, CVPR 2022.
    """

    def __init__(
        self,
        images: int,
        find_nearest: Callable[[], np.ndarray],
        *,
        each: int,
        size: int,
        seed: int,
        processes: int = 1,
    ) -> None:
        if each > images:
            raise UsageError(f"{images} images do not have {each - 1} others; lower --neighbors")
        self.queries = min(size // each, images) // processes * processes
        if not self.queries:
            raise UsageError(
                f"a batch of {size} images does not hold {each} for each of {processes} "
                "processes; raise --batch-size or lower --neighbors"
            )
        self.images, self.each, self.seed = images, each, seed
        self.stride = prime_stride(self.size)
        self._find_nearest, self._nearest = find_nearest, np.empty((0, each - 1), np.int64)

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.queries * self.each

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return max(1, self.images // self.size)

    def summary(self) -> str:
        """Describe a batch."""
        return f"{self.queries} x {self.each} near"

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        """Find the nearest images, unless it was done."""
        if not len(self._nearest):
            self._nearest = self._find_nearest()

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step."""
        number = epoch * self.steps + step
        pass_index, slot = divmod(number, self.images // self.queries)
        order = _shuffle(self.images, self.seed, pass_index)
        queries = order[slot * self.queries : (slot + 1) * self.queries]
        rows = np.column_stack([queries, self._nearest[queries]]).ravel()
        return [(int(row), number * self.stride + index) for index, row in enumerate(rows)]


class Views(Sampler):
    """The batches of another sampler with every image several times, each with its own draw."""

    def __init__(self, sampler: Sampler, views: int) -> None:
        self.sampler, self.views = sampler, views
        self.follows_model = sampler.follows_model

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.views * self.sampler.size

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return self.sampler.steps

    def summary(self) -> str:
        """Describe a batch."""
        return f"{self.views} views of {self.sampler.summary()}"

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step, all images in their first view, then in the next."""
        items, count = self.sampler.batch(epoch, step), self.views
        return [(row, draw * count + view) for view in range(count) for row, draw in items]

    def columns(self, epoch: int, step: int) -> dict[str, np.ndarray]:
        """Return the columns of the other sampler, once for each view."""
        columns = self.sampler.columns(epoch, step)
        return {name: np.concatenate([of] * self.views) for name, of in columns.items()}

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        """Prepare an epoch of the other sampler."""
        self.sampler.begin(epoch, embed)

    def state(self) -> dict[str, np.ndarray]:
        """Return the state of the other sampler."""
        return self.sampler.state()

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Give the other sampler its state back."""
        self.sampler.load_state(state)


def choose_sizes(
    classes: int,
    *,
    batch_size: int,
    classes_per_batch: int | None,
    images_per_class: int | None,
    processes: int = 1,
) -> tuple[int, int]:
    """Choose P and K for a batch size: K = 4 by default; fewer classes than P get more images each.

    A P that is not asked for is two at least, for without negatives nothing is learned, and such
    that the batch divides among the processes. Raises UsageError when a P x K asked for does not.
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
