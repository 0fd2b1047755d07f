"""k-means: far groups are found, runs repeat, confidence compares the two nearest means."""

import numpy as np
import pytest

from mltool import components
from mltool.clusterers.kmeans import kmeans
from mltool.errors import UsageError
from mltool.retrieval.clustering import nmi


def groups(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows close around four far centres, and the centre of each row."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, 8)) * 10
    labels = rng.integers(0, 4, count)
    return centres[labels] + 0.01 * rng.standard_normal((count, 8)), labels


def test_far_groups_are_found_and_runs_repeat() -> None:
    vectors, labels = groups(200, seed=1)
    # k-means may join two groups from one start, not from every start
    runs = [kmeans(vectors, seed=seed, k=4) for seed in range(30)]
    assert max(nmi(labels, clusters) for clusters, _ in runs) > 0.999
    again, confidence = kmeans(vectors, seed=3, k=4)
    np.testing.assert_array_equal(again, runs[3][0])
    np.testing.assert_array_equal(confidence, runs[3][1])


def test_confidence_compares_the_two_nearest_means() -> None:
    line = np.repeat([[0.0, 0.0], [10.0, 0.0]], 50, axis=0)
    vectors = np.concatenate([line, [[2.0, 0.0]]])
    labels, confidence = kmeans(vectors, seed=0, k=2)
    means = np.array([vectors[labels == cluster].mean(axis=0) for cluster in range(2)])
    distances = np.sort(np.linalg.norm(vectors[:, None] - means, axis=2), axis=1)
    expected = 1.0 - distances[:, 0] / distances[:, 1]
    np.testing.assert_allclose(confidence, expected, atol=1e-6)
    assert labels.dtype == np.int64
    assert confidence.argmin() == 100


def test_rows_that_all_means_share_are_sure_of_none() -> None:
    _, confidence = kmeans(np.ones((5, 3)), seed=0, k=2)
    assert confidence.tolist() == [0.0] * 5


def test_one_cluster_holds_all_for_sure() -> None:
    labels, confidence = kmeans(np.eye(3), seed=0, k=1)
    assert labels.tolist() == [0, 0, 0]
    assert confidence.tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize("k", [0, 4])
def test_more_clusters_than_vectors_are_refused(k: int) -> None:
    with pytest.raises(UsageError, match="3 vectors cannot form"):
        kmeans(np.eye(3), seed=0, k=k)


def test_it_is_a_component_of_its_family() -> None:
    vectors, _ = groups(40, seed=2)
    cluster = components.load("clusterers", "kmeans:k=4,iterations=5", seed=7)
    for one, other in zip(
        cluster(vectors), kmeans(vectors, seed=7, k=4, iterations=5), strict=True
    ):
        np.testing.assert_array_equal(one, other)
