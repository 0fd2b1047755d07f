"""Mensink et al., Distance-Based Image Classification (nearest class mean), PAMI 2013."""

import numpy as np

from mltool.clusterers._rows import assign, compare_distances
from mltool.errors import InputError
from mltool.exact.blocks import split_rows
from mltool.exact.knn import Resources
from mltool.exact.vector_set import Matrix
from mltool.files.concatenated_rows import release

NEEDS = {"reference"}

_BLOCK = 2**14  # rows added to the means at a time


def nearest(
    vectors: Matrix,
    *,
    metric: str,
    resources: Resources,
    reference: tuple[Matrix, np.ndarray],
) -> tuple[np.ndarray, np.ndarray]:
    """Give each row the class whose mean is nearest, among the classes of labelled rows.

    label_n = argmin_c |x_n - m_c|;  confidence_n = 1 - d_1 / d_2

    d_1 and d_2 are the Euclidean distances to the nearest and the second nearest class mean. For
    the metric cosine the mean is that of rows of unit length, and means and rows have unit length
    when they are compared. One mean a class makes a wrong label in the reference count little, and
    the two distances comparable between classes of any size. Ties go to the lower class. Raises
    InputError for a reference without a label.

    Args:
        vectors: [N, D].
        metric: cosine, or else Euclidean distances count.
        resources: memory and threads of the search.
        reference: vectors [M, D] and their labels [M] int64, -1 = unknown.

    Returns:
        labels [N] int64 of the reference, confidence [N] float64.
    """
    labelled, labels = reference
    classes = np.unique(labels[labels >= 0])
    if not len(classes):
        raise InputError("the reference has no labels; embed a list with labels")
    means = _average_by_class(labelled, labels, classes, metric)
    numbers, distances = assign(vectors, means, metric, resources)
    return classes[numbers], compare_distances(distances)


def _average_by_class(
    vectors: Matrix, labels: np.ndarray, classes: np.ndarray, metric: str
) -> np.ndarray:
    """Return the mean float64 [C, D] of the rows of each class, of unit rows for cosine."""
    sums = np.zeros((len(classes), vectors.shape[1]))
    rows = np.flatnonzero(labels >= 0)
    for block in split_rows(len(rows), _BLOCK):
        values = vectors[rows[block]].astype(np.float64)
        if metric == "cosine":
            norms = np.linalg.norm(values, axis=1, keepdims=True)
            values = np.divide(values, norms, out=np.zeros_like(values), where=norms > 0)
        np.add.at(sums, np.searchsorted(classes, labels[rows[block]]), values)
        release(vectors)
    return sums / np.bincount(np.searchsorted(classes, labels[rows]))[:, None]
