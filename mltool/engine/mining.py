"""Tuples of an anchor, a positive and negatives of distinct foreign classes, anew every epoch.

Radenovic, Tolias, Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, PAMI 2019, and
Budnik, Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from mltool import distributed
from mltool.engine.data import Images
from mltool.engine.samplers import Rows, prime_stride
from mltool.engine.teachers import CachedTeacher
from mltool.errors import InputError, UsageError

logger = logging.getLogger(__name__)

ANCHORS = 256  # ranked at a time

EmbedRows = Callable[[Sequence[int]], np.ndarray]  # the present student, rows -> [n, D]


@dataclass(frozen=True)
class MiningSettings:
    """How negatives are chosen, from how many images, for how many anchors."""

    kind: str  # hard or random
    pool: int = 20000
    queries: int = 2000
    negatives: int = 5


class Tuples(nn.Module):
    """The tuples of an epoch, saved with the run; rows of the image list.

    Negatives differ in `labels` [N] from the anchor and from each other; -1 = in no class. A
    positive is any other image of the class, unless `pairs` [P, 2] say which rows show the same.
    Raises InputError where nobody has a positive.
    """

    epoch: Tensor  # scalar, the epoch that the tuples are of; -1 before the first
    anchors: Tensor  # [Q]
    positives: Tensor  # [Q]
    negatives: Tensor  # [Q, n], -1 where there were too few foreign classes

    def __init__(
        self,
        labels: np.ndarray,
        settings: MiningSettings,
        *,
        seed: int,
        pairs: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.seed, self.labels, self.pairs = settings, seed, labels, pairs
        # what may be drawn: rows of the list, or of the pairs
        self.drawn = np.flatnonzero(np.isin(labels, _of_two(labels)))
        self.drawn = self.drawn if pairs is None else np.arange(len(pairs))
        if not len(self.drawn):
            lack = "no class has two images" if pairs is None else "no declared pair is left"
            raise InputError(f"{lack}, so no anchor has a positive; --mining needs another list")
        count = min(settings.queries, len(self.drawn))
        for name, shape in (
            ("epoch", ()),
            ("anchors", (count,)),
            ("positives", (count,)),
            ("negatives", (count, settings.negatives)),
        ):
            self.register_buffer(name, torch.full(shape, -1))

    def __len__(self) -> int:
        return len(self.anchors)

    def draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(anchors [Q], positives [Q], pool) of an epoch: the same for every loss and mining."""
        generator = np.random.default_rng([self.seed, epoch])
        anchors = self.drawn[generator.permutation(len(self.drawn))[: len(self)]]
        labelled = np.flatnonzero(self.labels >= 0)
        pool = labelled[generator.permutation(len(labelled))[: self.settings.pool]]
        if self.pairs is not None:
            anchors, positives = self.pairs[anchors].T
            return anchors, positives, pool
        return anchors, _another(self.labels, anchors, generator), pool

    def put(
        self, epoch: int, anchors: np.ndarray, positives: np.ndarray, negatives: np.ndarray
    ) -> None:
        """Make these the tuples of the epoch, on all ranks those of rank 0."""
        for buffer, values in (
            (self.epoch, epoch),
            (self.anchors, anchors),
            (self.positives, positives),
            (self.negatives, negatives),
        ):
            buffer.copy_(torch.as_tensor(values))
        distributed.broadcast_buffers(self)


class Mining:
    """Fills `tuples` at the start of an epoch.

    Candidates are ranked by the teacher's vectors against the present student's anchors; if
    `symmetric`, anchors too are the teacher's. Without a teacher all are the present student's.
    `images` are seen without augmentation.
    """

    def __init__(
        self, tuples: Tuples, images: Images, *, teacher: CachedTeacher | None, symmetric: bool
    ) -> None:
        self.tuples, self.images = tuples, images
        self.teacher, self.symmetric = teacher, symmetric
        self._has_warned = False

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        """Mine the tuples of an epoch, unless they are there already, from a saved state."""
        tuples, settings = self.tuples, self.tuples.settings
        if int(tuples.epoch) == epoch:
            return
        anchors, positives, pool = tuples.draw(epoch)
        own, foreign = tuples.labels[anchors], tuples.labels[pool]
        if settings.kind == "random":
            generator = np.random.default_rng([tuples.seed, epoch, 1])
            chosen = anyhow(own, foreign, count=settings.negatives, generator=generator)
        else:
            vectors, candidates = self._vectors(anchors, pool, embed)
            chosen = hardest(vectors, own, candidates, foreign, count=settings.negatives)
        lacking = int((chosen < 0).any(1).sum())
        if lacking and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%d of %d anchors have fewer than %d foreign classes in the pool of %d images",
                *(lacking, len(anchors), settings.negatives, len(pool)),
            )
        tuples.put(epoch, anchors, positives, np.where(chosen < 0, -1, pool[chosen]))

    def _vectors(
        self, anchors: np.ndarray, pool: np.ndarray, embed: EmbedRows
    ) -> tuple[np.ndarray, np.ndarray]:
        if self.teacher is None:
            return _unit(embed(anchors.tolist())), _unit(embed(pool.tolist()))
        candidates = self.teacher.of_rows(pool).numpy()
        if self.symmetric:
            own = self.teacher.of_rows(anchors).numpy()
            is_cosine = self.teacher.metric == "cosine"
            return (own, candidates) if is_cosine else _near(own, candidates)
        return _unit(embed(anchors.tolist())), candidates


class TupleBatches:
    """Batches of tuples: only their anchors, or if `whole` all their images, tuple by tuple.

    A missing negative is the anchor once more. The draw of an anchor tells its tuple, modulo the
    number of tuples, and is never the same twice.
    """

    def __init__(self, tuples: Tuples, *, per_batch: int, whole: bool) -> None:
        self.tuples, self.whole = tuples, whole
        self.per_batch = per_batch
        self.length = 2 + tuples.settings.negatives if whole else 1
        self.stride = prime_stride(self.length)

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.per_batch * self.length

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.tuples) // self.per_batch

    def summary(self) -> str:
        """A batch in words."""
        return f"{self.per_batch} x {self.length}" if self.whole else f"{self.per_batch} anchor"

    def batch(self, epoch: int, step: int) -> Rows:
        """The batch of one step of the epoch that the tuples are of."""
        numbers = range(step * self.per_batch, (step + 1) * self.per_batch)
        draws = [epoch * len(self.tuples) + number for number in numbers]
        chosen = slice(numbers.start, numbers.stop)
        anchors = self.tuples.anchors[chosen].cpu().numpy()
        if not self.whole:
            return list(zip(anchors.tolist(), draws, strict=True))
        others = np.column_stack(
            [self.tuples.positives[chosen].cpu(), self.tuples.negatives[chosen].cpu()]
        )
        rows = np.column_stack([anchors, np.where(others < 0, anchors[:, None], others)])
        return [
            (int(row), draw * self.stride + place)
            for draw, of_one in zip(draws, rows, strict=True)
            for place, row in enumerate(of_one)
        ]


def batches(tuples: Tuples, *, size: int, whole: bool, processes: int) -> TupleBatches:
    """As many tuples as give `size` images, at least one for each process. Raises UsageError."""
    length = 2 + tuples.settings.negatives if whole else 1
    count = min(max(size // length, processes), len(tuples)) // processes * processes
    if not count:
        raise UsageError(f"{len(tuples)} tuples are not enough for {processes} processes")
    return TupleBatches(tuples, per_batch=count, whole=whole)


def hardest(
    anchors: np.ndarray, own: np.ndarray, pool: np.ndarray, labels: np.ndarray, *, count: int
) -> np.ndarray:
    """The most similar candidates, one of a class at most and none of the anchor's own.

    `anchors` [Q, D] of classes `own` [Q], `pool` [M, D] of `labels` [M]; by inner product. Walking
    down the ranking takes a class by its best image, so the best images of the classes are ranked.
    Returns places in the pool [Q, count], -1 where classes run out; ties by class and place.
    """
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    result = np.full((len(anchors), count), -1)
    for first in range(0, len(anchors) if len(order) else 0, ANCHORS):
        block = slice(first, first + ANCHORS)
        sim = anchors[block] @ pool.T
        sim = sim[:, order]
        best = np.maximum.reduceat(sim, starts, axis=1)
        best[present == own[block, None]] = -np.inf
        ranking = np.argsort(-best, axis=1, kind="stable")[:, :count]
        for row, line in enumerate(ranking):
            kept = line[best[row, line] > -np.inf]
            places = [starts[c] + sim[row, starts[c] : ends[c]].argmax() for c in kept]
            result[first + row, : len(kept)] = order[places] if places else []
    return result


def anyhow(
    own: np.ndarray, labels: np.ndarray, *, count: int, generator: np.random.Generator
) -> np.ndarray:
    """Random candidates, one of a class at most and none of the anchor's own; as `hardest`."""
    order = np.argsort(labels, kind="stable")
    present, starts = np.unique(labels[order], return_index=True)
    sizes = np.diff(np.append(starts, len(order)))
    result = np.full((len(own), count), -1)
    for row, mine in enumerate(own):
        foreign = np.flatnonzero(present != mine)
        chosen = generator.permutation(foreign)[:count]
        places = starts[chosen] + (generator.random(len(chosen)) * sizes[chosen]).astype(int)
        result[row, : len(chosen)] = order[places]
    return result


def _of_two(labels: np.ndarray) -> np.ndarray:
    """The classes of two images at least."""
    found, sizes = np.unique(labels[labels >= 0], return_counts=True)
    return found[sizes > 1]


def _another(labels: np.ndarray, anchors: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """A random other image of each anchor's class [Q]."""
    order = np.argsort(labels, kind="stable")
    place = np.empty(len(labels), np.int64)
    place[order] = np.arange(len(labels))
    start = np.searchsorted(labels[order], labels[anchors])
    size = np.searchsorted(labels[order], labels[anchors], side="right") - start
    step = 1 + (generator.random(len(anchors)) * (size - 1)).astype(np.int64)
    return order[start + (place[anchors] - start + step) % size]


def _near(anchors: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Both sides one dimension longer, so that inner products rank the pool by distance."""
    half = (pool**2).sum(1, keepdims=True) / 2
    return np.hstack([anchors, np.ones_like(anchors[:, :1])]), np.hstack([pool, -half])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
