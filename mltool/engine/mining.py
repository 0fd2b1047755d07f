"""Tuples of an anchor, a positive and negatives of distinct other classes, anew every epoch.

Radenovic, Tolias, Chum, Fine-tuning CNN Image Retrieval with No Human Annotation, PAMI 2019, and
Budnik, Avrithis, Asymmetric Metric Learning for Knowledge Transfer, CVPR 2021.

Each epoch draws anchors, a positive for each, and a pool of images; negatives come from the pool.
Let the pool hold classes 1 1 2 3 0 and an anchor of class 0 have these similarities to it:

>>> sim, pool_labels = np.array([[0.9, 0.8, 0.2, 0.6, 1.0]]), np.array([1, 1, 2, 3, 0])
>>> hardest_negatives(np.ones((1, 1)), np.array([0]), sim.T, pool_labels, count=2)
array([[0, 3]])

The most similar image, of index 4, is of the anchor's own class, and index 1 is of the class that
index 0 has already stood for: the hardest two negatives are indices 0 and 3.
"""

import logging
from dataclasses import dataclass

import numpy as np

from mltool import distributed
from mltool.engine.samplers import EmbedRows, Rows, Sampler, prime_stride
from mltool.engine.teachers import CachedTeacher
from mltool.errors import InputError, UsageError

logger = logging.getLogger(__name__)

ANCHORS = 256  # ranked at a time
COLUMN = "tuple"  # of a batch of anchors: rows of the positive and the negatives, -1 = none


@dataclass(frozen=True)
class MiningSettings:
    """How negatives are chosen, from how many images, for how many anchors."""

    kind: str  # hard or random
    pool: int = 20000
    queries: int = 2000
    negatives: int = 5


class Tuples:
    """The tuples of an epoch; rows of the image list.

    Negatives differ in `labels` [N] from the anchor and from each other; -1 = in no class. A
    positive is any other image of the class, unless `pairs` [P, 2] say which rows show the same.
    Raises InputError where nobody has a positive.
    """

    def __init__(
        self,
        labels: np.ndarray,
        settings: MiningSettings,
        *,
        seed: int,
        pairs: np.ndarray | None = None,
    ) -> None:
        self.settings, self.seed, self.labels, self.pairs = settings, seed, labels, pairs
        if pairs is None:
            eligible = np.flatnonzero(np.isin(labels, classes_with_two(labels)))
        else:
            eligible = np.arange(len(pairs))
        if not len(eligible):
            lack = "no class has two images" if pairs is None else "no declared pair is left"
            raise InputError(f"{lack}, so no anchor has a positive; --mining needs another list")
        self.eligible = eligible  # rows of the list, or of the pairs, that can be drawn
        count = min(settings.queries, len(eligible))
        self.epoch = -1  # that the tuples are of; -1 before the first
        self.anchors = np.full(count, -1)  # [Q]
        self.positives = np.full(count, -1)  # [Q]
        # [Q, n], -1 where there were too few other classes
        self.negatives = np.full((count, settings.negatives), -1)

    def __len__(self) -> int:
        return len(self.anchors)

    def draw(self, epoch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw (anchors [Q], positives [Q], pool) of an epoch, the same for all mining."""
        generator = np.random.default_rng([self.seed, epoch])
        anchors = self.eligible[generator.permutation(len(self.eligible))[: len(self)]]
        labelled = np.flatnonzero(self.labels >= 0)
        pool = labelled[generator.permutation(len(labelled))[: self.settings.pool]]
        if self.pairs is not None:
            anchors, positives = self.pairs[anchors].T
            return anchors, positives, pool
        return anchors, random_positives(self.labels, anchors, generator), pool

    def put(
        self, epoch: int, anchors: np.ndarray, positives: np.ndarray, negatives: np.ndarray
    ) -> None:
        """Make these the tuples of the epoch, on all ranks those of rank 0."""
        mined = (epoch, anchors, positives, negatives)
        self.epoch, self.anchors, self.positives, self.negatives = distributed.gather_objects(
            mined
        )[0]


class TupleSampler(Sampler):
    """Batches of tuples, mined when an epoch begins: only their anchors, or all their images.

    Pool images are ranked by similarity: anchors embedded by the student, the pool by `teacher`;
    with `symmetric` both by the teacher; without a teacher both by the student. A batch has
    `per_batch` tuples. If `full_tuples`, their images come tuple by tuple, a missing negative being
    the anchor once more; else the batch is of anchors and carries the rest in the column `tuple`.
    """

    follows_model = True

    def __init__(
        self,
        tuples: Tuples,
        *,
        per_batch: int,
        full_tuples: bool,
        teacher: CachedTeacher | None = None,
        symmetric: bool = True,
    ) -> None:
        self.tuples, self.per_batch, self.full_tuples = tuples, per_batch, full_tuples
        self.teacher, self.symmetric = teacher, symmetric
        self.images_per_tuple = 2 + tuples.settings.negatives if full_tuples else 1
        self.stride = prime_stride(self.images_per_tuple)
        self._has_warned = False

    @property
    def size(self) -> int:
        """Images per batch."""
        return self.per_batch * self.images_per_tuple

    @property
    def steps(self) -> int:
        """Batches per epoch."""
        return len(self.tuples) // self.per_batch

    def summary(self) -> str:
        """Describe a batch."""
        if self.full_tuples:
            return f"{self.per_batch} x {self.images_per_tuple}"
        return f"{self.per_batch} anchor"

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        """Mine the tuples of an epoch, unless a saved state brought them."""
        tuples, settings = self.tuples, self.tuples.settings
        if tuples.epoch == epoch:
            return
        anchors, positives, pool = tuples.draw(epoch)
        anchor_labels, pool_labels = tuples.labels[anchors], tuples.labels[pool]
        if settings.kind == "random":
            generator = np.random.default_rng([tuples.seed, epoch, 1])
            indices = random_negatives(
                anchor_labels, pool_labels, count=settings.negatives, generator=generator
            )
        else:
            vectors, candidates = self._embed(anchors, pool, embed)
            indices = hardest_negatives(
                vectors, anchor_labels, candidates, pool_labels, count=settings.negatives
            )
        lacking = int((indices < 0).any(1).sum())
        if lacking and not self._has_warned:
            self._has_warned = True
            logger.warning(
                "%d of %d anchors have fewer than %d foreign classes in the pool of %d images",
                *(lacking, len(anchors), settings.negatives, len(pool)),
            )
        tuples.put(epoch, anchors, positives, np.where(indices < 0, -1, pool[indices]))

    def _embed(
        self, anchors: np.ndarray, pool: np.ndarray, embed: EmbedRows
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return vectors of anchors and pool by whose inner products negatives are ranked."""
        if self.teacher is None:
            return _unit(embed(anchors.tolist())), _unit(embed(pool.tolist()))
        candidates = self.teacher.read_rows(pool).numpy()
        if not self.symmetric:
            return _unit(embed(anchors.tolist())), candidates
        vectors = self.teacher.read_rows(anchors).numpy()
        if self.teacher.metric == "cosine":
            return vectors, candidates
        return augment_for_l2(vectors, candidates)

    def batch(self, epoch: int, step: int) -> Rows:
        """Return the batch of one step of the epoch that the tuples are of.

        The draw of the epoch's i-th anchor is epoch * tuples + i, which is unique over the run.
        """
        span = self._find_span(step)
        draws = range(epoch * len(self.tuples) + span.start, epoch * len(self.tuples) + span.stop)
        anchors = self.tuples.anchors[span]
        if not self.full_tuples:
            return list(zip(anchors.tolist(), draws, strict=True))
        others = self._others(span)
        rows = np.column_stack([anchors, np.where(others < 0, anchors[:, None], others)])
        return [
            (int(row), draw * self.stride + index)
            for draw, of_tuple in zip(draws, rows, strict=True)
            for index, row in enumerate(of_tuple)
        ]

    def columns(self, epoch: int, step: int) -> dict[str, np.ndarray]:
        """Return the rows of each anchor's positive and negatives [B, 1 + n], -1 = none."""
        return {} if self.full_tuples else {COLUMN: self._others(self._find_span(step))}

    def _find_span(self, step: int) -> slice:
        return slice(step * self.per_batch, (step + 1) * self.per_batch)

    def _others(self, span: slice) -> np.ndarray:
        return np.column_stack([self.tuples.positives[span], self.tuples.negatives[span]])

    def state(self) -> dict[str, np.ndarray]:
        """Return the epoch and its tuples."""
        tuples = self.tuples
        return {
            "epoch": np.array(tuples.epoch),
            "anchors": tuples.anchors,
            "positives": tuples.positives,
            "negatives": tuples.negatives,
        }

    def load_state(self, state: dict[str, np.ndarray]) -> None:
        """Take back the tuples of a saved epoch. Raises ValueError for those of another shape."""
        shapes = {name: of.shape for name, of in self.state().items()}
        if shapes != {name: of.shape for name, of in state.items()}:
            raise ValueError("tuples of another shape")
        self.tuples.epoch = int(state["epoch"])
        self.tuples.anchors, self.tuples.positives = state["anchors"], state["positives"]
        self.tuples.negatives = state["negatives"]


def choose_tuples_per_batch(tuples: Tuples, *, size: int, full_tuples: bool, processes: int) -> int:
    """Return how many tuples give `size` images, at least one per process. Raises UsageError."""
    images_per_tuple = 2 + tuples.settings.negatives if full_tuples else 1
    count = min(max(size // images_per_tuple, processes), len(tuples)) // processes * processes
    if not count:
        raise UsageError(f"{len(tuples)} tuples are not enough for {processes} processes")
    return count


def hardest_negatives(
    anchors: np.ndarray,
    anchor_labels: np.ndarray,
    pool: np.ndarray,
    pool_labels: np.ndarray,
    *,
    count: int,
) -> np.ndarray:
    """Return the most similar images of other classes, one of a class at most.

    The published walk takes the pool from the most similar image down and skips classes that it
    has met. Ranking the best image of each class gives the same.

    Args:
        anchors: [Q, D], compared by inner product.
        anchor_labels: [Q].
        pool: [M, D].
        pool_labels: [M].
        count: negatives of an anchor.

    Returns:
        Indices into the pool [Q, count], -1 where classes run out; ties by class, then by index.
    """
    order = np.argsort(pool_labels, kind="stable")
    present, starts = np.unique(pool_labels[order], return_index=True)
    ends = np.append(starts, len(order))[1:]
    result = np.full((len(anchors), count), -1)
    for first in range(0, len(anchors) if len(order) else 0, ANCHORS):
        block = slice(first, first + ANCHORS)
        sim = anchors[block] @ pool.T
        sim = sim[:, order]
        best = np.maximum.reduceat(sim, starts, axis=1)
        best[present == anchor_labels[block, None]] = -np.inf
        ranking = np.argsort(-best, axis=1, kind="stable")[:, :count]
        for row, line in enumerate(ranking):
            classes = line[best[row, line] > -np.inf]
            offsets = [starts[c] + sim[row, starts[c] : ends[c]].argmax() for c in classes]
            result[first + row, : len(classes)] = order[offsets] if offsets else []
    return result


def random_negatives(
    anchor_labels: np.ndarray,
    pool_labels: np.ndarray,
    *,
    count: int,
    generator: np.random.Generator,
) -> np.ndarray:
    """Return random images of other classes, one of a class at most; as `hardest_negatives`."""
    order = np.argsort(pool_labels, kind="stable")
    present, starts = np.unique(pool_labels[order], return_index=True)
    sizes = np.diff(np.append(starts, len(order)))
    result = np.full((len(anchor_labels), count), -1)
    for row, label in enumerate(anchor_labels):
        others = np.flatnonzero(present != label)
        classes = generator.permutation(others)[:count]
        offsets = starts[classes] + (generator.random(len(classes)) * sizes[classes]).astype(int)
        result[row, : len(classes)] = order[offsets]
    return result


def classes_with_two(labels: np.ndarray) -> np.ndarray:
    """Return the classes of at least two images."""
    classes, sizes = np.unique(labels[labels >= 0], return_counts=True)
    return classes[sizes > 1]


def random_positives(
    labels: np.ndarray, anchors: np.ndarray, generator: np.random.Generator
) -> np.ndarray:
    """Return a random other image of each anchor's class [Q]."""
    order = np.argsort(labels, kind="stable")
    offset = np.empty(len(labels), np.int64)
    offset[order] = np.arange(len(labels))
    start = np.searchsorted(labels[order], labels[anchors])
    size = np.searchsorted(labels[order], labels[anchors], side="right") - start
    step = 1 + (generator.random(len(anchors)) * (size - 1)).astype(np.int64)
    return order[start + (offset[anchors] - start + step) % size]


def augment_for_l2(anchors: np.ndarray, pool: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Add a dimension to both, so that inner products rank the pool by Euclidean distance."""
    half = (pool**2).sum(1, keepdims=True) / 2
    return np.hstack([anchors, np.ones_like(anchors[:, :1])]), np.hstack([pool, -half])


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
