"""Pairs of images of one list that are near duplicates of each other, and the groups they form."""

from dataclasses import dataclass

import numpy as np

from mltool.errors import ResourceError
from mltool.exact.close_pairs import PAIR_BYTES, find_close_pairs
from mltool.exact.knn import Resources
from mltool.exact.vector_set import make_vector_sets
from mltool.files.embeddings import Embeddings
from mltool.retrieval.fingerprints import Fingerprints


@dataclass(frozen=True, eq=False)
class Duplicates:
    """Pairs of rows, each once, ordered by the first row and then by the second."""

    first: np.ndarray  # [P] int64
    second: np.ndarray  # [P] int64, above the first
    scores: np.ndarray  # [P] float64
    groups: np.ndarray  # [P] int64 from 0: connected pairs share one, numbered by their first row
    same: np.ndarray | None = None  # [P] bool: the decoded pixels are equal; None for vectors

    def __len__(self) -> int:
        return len(self.first)

    def count_surplus(self) -> int:
        """Count the images that could go if one of each group stays."""
        images = len(np.unique(np.concatenate([self.first, self.second])))
        return images - len(np.unique(self.groups))


def find_vector_duplicates(
    embeddings: Embeddings, *, min_score: float, resources: Resources
) -> Duplicates:
    """Find the pairs of vectors that score at least `min_score` by the metric of their file.

    Raises NotFiniteError for NaN, ResourceError for too many pairs.
    """
    rows, _ = make_vector_sets(
        (embeddings.vectors, embeddings.names), None, metric=embeddings.metric
    )
    pairs = find_close_pairs(rows, min_score=min_score, resources=resources)
    groups = number_groups(len(embeddings), pairs.first, pairs.second)
    return Duplicates(pairs.first, pairs.second, pairs.scores, groups)


def find_image_duplicates(
    prints: Fingerprints, *, min_score: float, resources: Resources
) -> Duplicates:
    """Find the pairs of images whose thumbnails have at least this cosine, or whose pixels are one.

    The score of equal pixels is 1, also where a picture of one grey value resembles nothing. Raises
    ResourceError for too many pairs.
    """
    rows, _ = make_vector_sets((prints.thumbnails, prints.digests), None, metric="cosine")
    pairs = find_close_pairs(rows, min_score=min_score, resources=resources)
    first, second = _pair_blank(prints, most=resources.max_memory // PAIR_BYTES)
    first, second = np.append(pairs.first, first), np.append(pairs.second, second)
    same = prints.digests[first] == prints.digests[second]
    scores = np.append(pairs.scores, np.ones(len(first) - len(pairs.first)))
    order = np.lexsort((second, first))
    first, second, same = first[order], second[order], same[order]
    scores = np.where(same, 1.0, scores[order])
    return Duplicates(first, second, scores, number_groups(len(prints), first, second), same)


def number_groups(count: int, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Return the connected component [P] of each pair among `count` rows, by the lowest row."""
    from scipy.sparse import coo_matrix
    from scipy.sparse.csgraph import connected_components

    edges = coo_matrix((np.ones(len(first), bool), (first, second)), shape=(count, count))
    _, component = connected_components(edges, directed=False)
    _, first_row, inverse = np.unique(
        component[first], return_index=True, return_inverse=True
    )  # pairs are in order of their first rows, so the first pair of a component has its lowest
    rank = np.empty(len(first_row), np.int64)
    rank[np.argsort(first_row)] = np.arange(len(first_row))
    return rank[inverse]


def _pair_blank(prints: Fingerprints, *, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the pairs of readable images with equal pixels whose thumbnails are zeros."""
    blank = np.flatnonzero(~prints.thumbnails.any(axis=1) & (prints.digests != b""))
    digests = prints.digests[blank]
    order = np.argsort(digests, kind="stable")
    sizes = np.unique(digests, return_counts=True)[1]
    if (sizes * (sizes - 1) // 2).sum() > most:
        raise ResourceError("too many images of one colour are the same; raise --max-memory")
    pairs = [(np.zeros(0, np.int64), np.zeros(0, np.int64))]
    for group in np.split(blank[order], np.cumsum(sizes)[:-1]) if len(blank) else []:
        left, right = np.triu_indices(len(group), 1)
        pairs.append((group[left], group[right]))
    first, second = (np.concatenate(side) for side in zip(*pairs, strict=True))
    return first, second
