"""How well classes are told from vectors: a labelled gallery teaches, the queries are classified.

The two probes of frozen features, as in Zhang, Isola, Efros, "Colorful Image Colorization", 2016
(linear), and Wu, Xiong, Yu, Lin, "Unsupervised Feature Learning via Non-Parametric Instance
Discrimination", 2018 (nearest neighbours). A query has the value 1 if its class is told, else 0.
"""

import logging
import re
import warnings
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError, ResourceError
from mltool.exact.knn import Resources, find_neighbors
from mltool.exact.vector_set import VectorSet
from mltool.files.embeddings import Embeddings
from mltool.files.labels import join_labels

logger = logging.getLogger(__name__)

LINEAR = "linear-accuracy"
NAMES = ("knn-accuracy@K", LINEAR)
DEFAULT_K = 5  # as in scikit-learn
MAX_ITERATIONS = 1000
MATRICES = 3  # of the size of the input that the linear classifier holds at a time


@dataclass(frozen=True, eq=False)
class Probe:
    """What queries are classified by; labels are numbers in the order of the classes' texts."""

    queries: VectorSet
    gallery: VectorSet
    query_labels: np.ndarray  # [Q] int64, -1 = unknown
    gallery_labels: np.ndarray  # [N] int64, -1 = unknown: teaches nothing
    self_rows: np.ndarray  # [Q] int64, the gallery row that is the query itself, -1 = none
    seed: int
    resources: Resources

    def score(self, name: str) -> np.ndarray:
        """Return for each query 1 if its class is told, else 0: [Q] float64.

        Raises InputError where the gallery does not suffice, ResourceError for too little memory.
        """
        told = self._tell_linearly() if name == LINEAR else self._tell_by_neighbors(read_k(name))
        return (told == self.query_labels).astype(np.float64)

    def _list_labelled(self) -> np.ndarray:
        return np.flatnonzero(self.gallery_labels >= 0)

    def _tell_by_neighbors(self, k: int) -> np.ndarray:
        """Return the class [Q] of most of the k nearest labelled rows."""
        rows = self._list_labelled()
        if len(rows) < k:
            raise InputError(
                f"knn-accuracy@{k} needs {k} labelled gallery rows, but there are {len(rows)}"
            )
        gallery = self.gallery if len(rows) == len(self.gallery) else self.gallery.take(rows)
        row_in_copy = np.full(len(self.gallery) + 1, -1)  # its last entry stands for -1
        row_in_copy[rows] = np.arange(len(rows))
        nearest = find_neighbors(
            self.queries,
            gallery,
            k=k,
            self_rows=row_in_copy[self.self_rows],
            resources=self.resources,
        )
        labels = np.append(self.gallery_labels[rows], -1)
        return take_vote(labels[nearest.rows])

    def _tell_linearly(self) -> np.ndarray:
        """Return the class [Q] by multinomial logistic regression on standardised vectors."""
        rows = self._list_labelled()
        if len(np.unique(self.gallery_labels[rows])) < 2:
            raise InputError("linear-accuracy tells classes apart; the gallery has less than two")
        if (self.self_rows >= 0).any():
            raise InputError(
                f"{np.count_nonzero(self.self_rows >= 0):,} queries are in the gallery too, from "
                "which linear-accuracy learns; give a gallery of other images"
            )
        needed = MATRICES * 8 * self.gallery.dim * (len(rows) + len(self.queries))
        if needed > self.resources.max_memory:
            raise ResourceError(
                f"linear-accuracy needs about {needed / 2**30:.1f} GiB; raise --max-memory"
            )
        return _fit_and_predict(
            _read(self.gallery, rows),
            self.gallery_labels[rows],
            _read(self.queries, slice(None)),
            seed=self.seed,
            threads=self.resources.threads,
        )


def is_classification(name: str) -> bool:
    """Return whether a metric classifies queries by a labelled gallery."""
    return name == LINEAR or re.fullmatch(r"knn-accuracy(@[1-9][0-9]*)?", name) is not None


def read_k(name: str) -> int:
    """Return the K of `knn-accuracy@K`."""
    return int(name.partition("@")[2] or DEFAULT_K)


def order_labels(queries: Embeddings, gallery: Embeddings) -> tuple[np.ndarray, np.ndarray]:
    """Number the labels of both by the order of their texts, -1 = unknown. Raises InputError."""
    labels, texts = join_labels([queries, gallery])
    if texts:
        rank = np.append(np.argsort(np.argsort(np.array(texts))), -1)
        labels = rank[labels]
    return labels[: len(queries)], labels[len(queries) :]


def take_vote(labels: np.ndarray) -> np.ndarray:
    """Return the most frequent label of each row [Q, k] -> [Q]; the lowest of those that tie.

    -1 has no vote; a row without votes gives -1.
    """
    count = len(labels)
    rows = np.repeat(np.arange(count), labels.shape[1])
    votes = labels.ravel()
    pairs = np.stack([rows, votes])[:, votes >= 0]
    (row, label), number = np.unique(pairs, axis=1, return_counts=True)
    order = np.lexsort((label, -number, row))
    first = np.unique(row[order], return_index=True)[1]
    winners = np.full(count, -1)
    winners[row[order][first]] = label[order][first]
    return winners


def _read(vectors: VectorSet, rows: slice | np.ndarray) -> np.ndarray:
    """Read vectors in float64, of unit length if they are compared by cosine."""
    block = np.array(vectors.vectors[rows], np.float64)
    if vectors.metric != "cosine":
        return block
    lengths = np.linalg.norm(block, axis=1, keepdims=True)
    return np.divide(block, lengths, out=block, where=lengths > 0)


def _fit_and_predict(
    vectors: np.ndarray, labels: np.ndarray, queries: np.ndarray, *, seed: int, threads: int | None
) -> np.ndarray:
    """Fit scikit-learn's logistic regression, C = 1, to vectors [N, D]; classify queries [Q, D].

    Every component is brought to mean 0 and deviation 1 over the gallery.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    classifier = LogisticRegression(max_iter=MAX_ITERATIONS, random_state=seed)
    pipeline = make_pipeline(StandardScaler(), classifier)
    with threadpool_limits(threads), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said below, in our words
        pipeline.fit(vectors, labels)
        predicted = pipeline.predict(queries)
    if classifier.n_iter_.max() >= MAX_ITERATIONS:
        logger.warning("linear-accuracy: no convergence within %d iterations", MAX_ITERATIONS)
    return predicted
