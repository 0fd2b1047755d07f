"""DBSCAN is scikit-learn's; its confidence is counted by brute force."""

import numpy as np
import pytest
from sklearn.cluster import DBSCAN

from mltool.clusterers.dbscan import dbscan
from mltool.errors import ResourceError
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows

RESOURCES = Resources(threads=1)


def make_rows(seed: int, count: int = 150) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return 3 * rng.standard_normal((6, 3))[rng.integers(0, 6, count)] + rng.normal(
        0, 0.5, (count, 3)
    )


def count_shares(rows: np.ndarray, labels: np.ndarray, eps: float) -> np.ndarray:
    shares = np.zeros(len(rows))
    for row, label in enumerate(labels):
        near = np.linalg.norm(rows - rows[row], axis=1) <= eps
        shares[row] = np.mean(labels[near] == label) if label >= 0 else 0.0
    return shares


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("eps", [0.2, 0.6, 1.1])
@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_against_scikit_learn(seed: int, eps: float, metric: str) -> None:
    rows = make_rows(seed)
    labels, confidence = dbscan(
        rows, metric=metric, resources=RESOURCES, eps=eps, min_samples=seed + 1
    )
    if metric == "cosine":
        rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    np.testing.assert_array_equal(labels, DBSCAN(eps=eps, min_samples=seed + 1).fit(rows).labels_)
    np.testing.assert_allclose(confidence, count_shares(rows, labels, eps), atol=1e-12)


def test_eps_is_a_distance_of_unit_rows() -> None:
    angles = np.array([0.0, 0.1, 0.2, 2.0])
    rows = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.array([[1], [5], [9], [2]])
    eps = np.sqrt(2 - 2 * np.cos(0.11))
    labels, _ = dbscan(rows, metric="cosine", resources=RESOURCES, eps=eps, min_samples=2)
    assert labels.tolist() == [0, 0, 0, -1]


def test_a_row_alone_is_noise_or_a_cluster() -> None:
    rows = 10 * np.eye(4)
    labels, confidence = dbscan(
        rows, metric="euclidean", resources=RESOURCES, eps=0.5, min_samples=2
    )
    assert (labels.tolist(), confidence.tolist()) == ([-1] * 4, [0.0] * 4)
    labels, confidence = dbscan(
        rows, metric="euclidean", resources=RESOURCES, eps=0.5, min_samples=1
    )
    assert (labels.tolist(), confidence.tolist()) == ([0, 1, 2, 3], [1.0] * 4)


def test_equal_rows_and_rows_of_zeros_are_neighbours() -> None:
    for rows in (np.ones((5, 3)), np.zeros((5, 3))):
        labels, confidence = dbscan(rows, metric="cosine", resources=RESOURCES)
        assert (labels.tolist(), confidence.tolist()) == ([0] * 5, [1.0] * 5)
    labels, confidence = dbscan(np.zeros((0, 3)), metric="cosine", resources=RESOURCES)
    assert len(labels) == len(confidence) == 0


def test_shards_are_one_matrix() -> None:
    rows = make_rows(7)
    shards = ConcatenatedRows([rows[:60], rows[60:]])
    one, other = (
        dbscan(each, metric="cosine", resources=RESOURCES, eps=0.2) for each in (rows, shards)
    )
    np.testing.assert_array_equal(one[0], other[0])


def test_too_many_neighbours_are_refused() -> None:
    few = Resources(max_memory=2**20)
    with pytest.raises(ResourceError, match="take a smaller eps"):
        dbscan(np.ones((1000, 2)), metric="cosine", resources=few)
