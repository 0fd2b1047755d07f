"""k-means against scikit-learn from the same start, and against a plain loop on the sphere."""

import numpy as np
import pytest
from sklearn.cluster import KMeans

from mltool import components
from mltool.clusterers.kmeans import kmeans
from mltool.errors import InputError, ResourceError
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.retrieval.clustering import nmi

HERE = {"metric": "euclidean", "resources": Resources(threads=1)}
COSINE = HERE | {"metric": "cosine"}


def groups(count: int, seed: int, noise: float = 0.01) -> tuple[np.ndarray, np.ndarray]:
    """Rows around four far centres, and the centre of each row."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((4, 8)) * 10
    labels = rng.integers(0, 4, count)
    return centres[labels] + noise * rng.standard_normal((count, 8)), labels


def draw_start(vectors: np.ndarray, k: int, seed: int, restart: int = 0) -> np.ndarray:
    rows = np.random.default_rng([seed, restart]).choice(len(vectors), k, replace=False)
    return vectors[rows]


def cluster_on_the_sphere(
    vectors: np.ndarray, means: np.ndarray, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spherical k-means as a loop: labels, and cosines to all means."""
    rows = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    means = means / np.linalg.norm(means, axis=1, keepdims=True)
    for _ in range(rounds):
        labels = (rows @ means.T).argmax(axis=1)
        sums = np.array([rows[labels == cluster].sum(axis=0) for cluster in range(len(means))])
        means = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return (rows @ means.T).argmax(axis=1), rows @ means.T


@pytest.mark.parametrize("k", [2, 7, 20])
@pytest.mark.parametrize("scale", [1.0, 1e25, 1e-25])
def test_against_scikit_learn_from_the_same_start(k: int, scale: float) -> None:
    rng = np.random.default_rng(k)
    vectors = (rng.standard_normal((400, 6)) + 3 * rng.integers(0, 3, (400, 1))).astype(np.float32)
    labels, confidence = kmeans(vectors * np.float32(scale), seed=3, k=k, iterations=100, **HERE)
    oracle = KMeans(k, init=draw_start(vectors, k, 3), n_init=1, tol=0, max_iter=100).fit(vectors)
    np.testing.assert_array_equal(labels, oracle.labels_)
    distances = np.sort(oracle.transform(vectors), axis=1)
    np.testing.assert_allclose(confidence, 1 - distances[:, 0] / distances[:, 1], atol=1e-4)


@pytest.mark.parametrize("k", [2, 5, 11])
def test_cosine_clusters_directions(k: int) -> None:
    rng = np.random.default_rng(k)
    vectors = rng.standard_normal((300, 5)) * rng.uniform(0.1, 50, (300, 1))
    labels, confidence = kmeans(vectors, seed=1, k=k, iterations=60, **COSINE)
    oracle, cosines = cluster_on_the_sphere(vectors, draw_start(vectors, k, 1), 60)
    np.testing.assert_array_equal(labels, oracle)
    distances = np.sort(np.sqrt(2 - 2 * cosines), axis=1)
    np.testing.assert_allclose(confidence, 1 - distances[:, 0] / distances[:, 1], atol=1e-4)


def test_the_best_restart_is_kept() -> None:
    vectors, labels = groups(200, seed=1)
    one = [
        KMeans(4, init=draw_start(vectors, 4, 5, restart), n_init=1, tol=0).fit(vectors)
        for restart in range(8)
    ]
    assert len({round(run.inertia_, 3) for run in one}) > 1
    clusters, _ = kmeans(vectors, seed=5, k=4, restarts=8, **HERE)
    best = min(one, key=lambda run: run.inertia_)
    np.testing.assert_array_equal(clusters, best.labels_)
    assert nmi(labels, clusters) > 0.999


def test_runs_repeat_and_seeds_differ() -> None:
    vectors, _ = groups(200, seed=1, noise=5)
    one, other = (kmeans(vectors, seed=2**62, k=9, **HERE) for _ in range(2))
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert (kmeans(vectors, seed=4, k=9, **HERE)[0] != one[0]).any()


def test_a_sample_moves_the_means_and_all_rows_are_assigned() -> None:
    vectors, labels = groups(400, seed=1)
    clusters, confidence = kmeans(vectors, seed=0, k=4, restarts=10, sample=60, **HERE)
    assert len(clusters) == len(confidence) == 400
    assert nmi(labels, clusters) > 0.999
    whole = kmeans(vectors, seed=0, k=4, **HERE)[0]
    np.testing.assert_array_equal(kmeans(vectors, seed=0, k=4, sample=400, **HERE)[0], whole)


def test_shards_are_one_matrix() -> None:
    vectors, _ = groups(90, seed=4, noise=5)
    shards = ConcatenatedRows([vectors[:20], vectors[20:21], vectors[21:]])
    for one, other in zip(
        kmeans(vectors, seed=0, k=5, **COSINE), kmeans(shards, seed=0, k=5, **COSINE), strict=True
    ):
        np.testing.assert_array_equal(one, other)


def test_equal_rows_share_a_cluster() -> None:
    rng = np.random.default_rng(0)
    distinct = rng.standard_normal((12, 3))
    for facts in (HERE, COSINE):
        which = rng.integers(0, 12, 80)
        labels, _ = kmeans(distinct[which], seed=0, k=10, **facts)
        assert all(len(set(labels[which == row])) == 1 for row in set(which))


@pytest.mark.parametrize("facts", [HERE, COSINE])
def test_rows_that_all_means_share_are_sure_of_none(facts: dict) -> None:
    for rows in (np.ones((5, 3)), np.zeros((5, 3))):
        labels, confidence = kmeans(rows, seed=0, k=2, **facts)
        assert len(set(labels)) == 1
        np.testing.assert_allclose(confidence, 0, atol=2e-3)  # faiss parts empty means by 1/1024


@pytest.mark.parametrize("facts", [HERE, COSINE])
def test_one_cluster_and_as_many_as_rows(facts: dict) -> None:
    labels, confidence = kmeans(np.eye(3), seed=0, k=1, **facts)
    assert labels.tolist() == [0, 0, 0]
    assert confidence.tolist() == [1.0, 1.0, 1.0]
    labels, confidence = kmeans(np.eye(3), seed=0, k=3, **facts)
    assert sorted(labels) == [0, 1, 2]
    assert confidence.tolist() == [1.0, 1.0, 1.0]
    assert labels.dtype == np.int64


@pytest.mark.parametrize("k", [0, 4])
def test_more_clusters_than_vectors_are_refused(k: int) -> None:
    with pytest.raises(InputError, match="3 vectors cannot form"):
        kmeans(np.eye(3), seed=0, k=k, **HERE)


def test_rows_that_do_not_fit_are_refused() -> None:
    vectors = np.zeros((1000, 64), np.float32)
    few = Resources(max_memory=2**17)
    with pytest.raises(ResourceError, match="kmeans:sample="):
        kmeans(vectors, seed=0, metric="cosine", resources=few, k=2)


def test_it_is_a_component_of_its_family() -> None:
    vectors, _ = groups(40, seed=2)
    cluster = components.load("clusterers", "kmeans:k=4,iterations=5", seed=7, **HERE)
    for one, other in zip(
        cluster(vectors), kmeans(vectors, seed=7, k=4, iterations=5, **HERE), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert components.parse("clusterers", "kmeans:k=4").text.endswith("restarts=1")
