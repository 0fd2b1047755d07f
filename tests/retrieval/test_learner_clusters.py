"""Clusters for learners, against brute force, scipy and scikit-learn."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.metrics.cluster import contingency_matrix

from mltool import components
from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.retrieval.learner_clusters import cluster_rows, deal_classes, divide, match


def repeat(clusters: list[int]):
    """Return a divider that always gives these clusters, and cuts by even and odd rows."""

    def divider(rows: np.ndarray, count: int) -> np.ndarray:
        return np.array(clusters) if len(rows) == len(clusters) else np.arange(len(rows)) % 2

    return divider


def overlap_of(new: np.ndarray, old: np.ndarray) -> int:
    return int(((new == old) & (old >= 0)).sum())


def test_the_golden_case_of_the_inverse_permutation() -> None:
    old, new = np.array([0, 0, 1, 1, 2, 2]), np.array([1, 1, 2, 2, 0, 0])
    assert match(new, old, 3).tolist() == [0, 0, 1, 1, 2, 2]
    assert match(np.array([1, 1, 2, 2, 0, 0]), np.array([0, 0, 1, 1, 2, 2]), 3).tolist() == (
        old.tolist()
    )


@pytest.mark.parametrize("count", [1, 2, 3, 4, 8, 16, 33])
def test_numbers_permuted_at_random_come_back(count: int) -> None:
    rng = np.random.default_rng(count)
    old = np.concatenate([np.arange(count), rng.integers(0, count, 40 * count)])
    new = rng.permutation(count)[old]
    np.testing.assert_array_equal(match(new, old, count), old)
    noisy = np.where(rng.random(len(old)) < 0.1, rng.integers(0, count, len(old)), new)
    assert overlap_of(match(noisy, old, count), old) > 0.85 * len(old)


@pytest.mark.parametrize("seed", range(20))
def test_the_overlap_is_the_largest(seed: int) -> None:
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 6))
    old = rng.integers(-1, count, 30)
    new = rng.integers(0, count, 30)
    best = max(
        overlap_of(np.array(order)[new], old) for order in itertools.permutations(range(count))
    )
    matched = match(new, old, count)
    assert overlap_of(matched, old) == best
    assert adjusted_rand_score(matched, new) == pytest.approx(1.0)


def test_symmetric_differences_give_the_same() -> None:
    rng = np.random.default_rng(0)
    old, new = rng.integers(0, 6, 200), rng.integers(0, 6, 200)
    differences = [[int(((new == i) ^ (old == j)).sum()) for j in range(6)] for i in range(6)]
    rows, columns = linear_sum_assignment(np.array(differences))
    shared = contingency_matrix(new, old)[rows, columns].sum()
    assert overlap_of(match(new, old, 6), old) == shared


def test_images_without_a_cluster_before_do_not_count() -> None:
    old = np.array([1, -1, -1, -1, 0])
    assert match(np.array([0, 0, 0, 0, 1]), old, 2).tolist() == [1, 1, 1, 1, 0]
    with pytest.raises(InputError, match="take -k 4"):
        match(np.array([0, 0]), np.array([3, 0]), 2)


def split_of(clusters: list[int], labels: list[int], count: int, **settings: object):
    vectors = np.asarray(settings.pop("vectors", np.eye(len(labels))), np.float32)
    facts = {"metric": "cosine", "min_classes": 1} | settings
    return divide(vectors, np.array(labels), count=count, divider=repeat(clusters), **facts)


@pytest.mark.parametrize("seed", range(10))
def test_images_alone_in_their_class_are_set_aside(seed: int) -> None:
    rng = np.random.default_rng(seed)
    clusters, labels = rng.integers(0, 3, 60), rng.integers(-1, 15, 60)
    split = split_of(clusters.tolist(), labels.tolist(), 3)
    cells = Counter(zip(clusters.tolist(), labels.tolist(), strict=True))
    expected = [
        c if label >= 0 and cells[c, label] > 1 else -1
        for c, label in zip(clusters.tolist(), labels.tolist(), strict=True)
    ]
    assert split.clusters.tolist() == expected
    assert split.counts["set_aside"] == expected.count(-1)


def test_a_cluster_with_too_few_classes_joins_the_nearest() -> None:
    clusters = [0] * 8 + [1] * 8 + [2] * 4
    labels = [0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9]
    angles = np.array([0.0] * 8 + [2.0] * 8 + [1.2] * 4)
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1) * np.arange(1, 21)[:, None]
    split = split_of(clusters, labels, 3, vectors=vectors, min_classes=3)
    # 1.2 is nearer to 2.0; the highest number is in use
    assert split.clusters.tolist() == [0] * 8 + [2] * 12
    assert (split.count, split.counts["merged"]) == (3, 1)
    # the cosine does not see these lengths, the distance does
    lengths = np.array([[1.0]] * 8 + [[9.0]] * 8 + [[3.0]] * 4)
    split = split_of(clusters, labels, 3, vectors=lengths, min_classes=3, metric="euclidean")
    assert split.clusters.tolist() == [0] * 8 + [2] * 8 + [0] * 4


def test_a_merged_cluster_has_the_mean_of_all_its_images() -> None:
    sizes, means, labels = [4, 4, 4, 16], [0.0, 1.0, 3.2, 5.5], []
    for size in sizes:
        labels += [len(labels) + n // 2 for n in range(size)]
    clusters = np.repeat(np.arange(4), sizes).tolist()
    vectors = np.repeat(means, sizes)[:, None]
    # 0 joins 1; 2 is nearer to 1.0 than to 5.5, but not nearer to their mean 0.5
    split = split_of(clusters, labels, 4, vectors=vectors, min_classes=4, metric="euclidean")
    assert split.clusters.tolist() == [1] * 8 + [3] * 20
    assert split.counts["merged"] == 2


def test_all_images_together_must_have_enough_classes() -> None:
    with pytest.raises(InputError, match="2 classes of two images or more, fewer than"):
        split_of([0, 0, 1, 1], [0, 0, 1, 1], 2, min_classes=3)
    with pytest.raises(InputError, match="0 classes"):
        split_of([0, 0, 1, 1], [-1] * 4, 2)


def test_children_of_a_cluster_are_its_images() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((400, 5)).astype(np.float32)
    labels, previous = rng.integers(0, 9, 400), rng.integers(-1, 3, 400)
    divider = make_kmeans_divider(vectors)
    facts = {"count": 3, "divider": divider, "metric": "cosine", "min_classes": 2}
    parents = divide(vectors, labels, previous=previous, **facts)
    children = divide(vectors, labels, previous=previous, double=True, **facts)
    both = (parents.clusters >= 0) & (children.clusters >= 0)
    np.testing.assert_array_equal(children.clusters[both] // 2, parents.clusters[both])
    assert set(children.clusters.tolist()) - {-1} == set(range(6))
    assert (parents.count, children.count) == (3, 6)
    shared = both & (previous >= 0)
    assert children.counts["in_both"] >= shared.sum()


def test_a_cluster_whose_half_is_too_small_stays_whole() -> None:
    labels = [0, 0, 1, 1, *[2, 3, 2, 3] * 2]
    split = split_of([0] * 4 + [1] * 8, labels, 2, double=True)
    # rows 0 and 2, and 1 and 3, share no class: cluster 0 cannot be cut
    assert split.clusters.tolist() == [1] * 4 + [2, 3] * 4
    assert split.counts["not_doubled"] == 1


def test_what_was_kept_is_counted() -> None:
    labels = [0] * 8
    split = split_of([0] * 4 + [1] * 4, labels, 2, previous=np.array([1, 1, 1, 0, 0, 0, -1, -1]))
    assert split.clusters.tolist() == [1] * 4 + [0] * 4
    assert (split.counts["in_both"], split.counts["kept"]) == (6, 5)


def test_classes_are_dealt_as_a_whole() -> None:
    labels = np.random.default_rng(0).integers(0, 43, 500) * 7
    dealt = deal_classes(labels, 4, seed=1)
    pairs = set(zip(labels.tolist(), dealt.tolist(), strict=True))
    assert len(pairs) == 43
    assert sorted(Counter(cluster for _, cluster in pairs).values()) == [10, 11, 11, 11]
    np.testing.assert_array_equal(dealt, deal_classes(labels, 4, seed=1))
    assert (dealt != deal_classes(labels, 4, seed=2)).any()


def make_kmeans_divider(vectors: np.ndarray):
    def divider(rows: np.ndarray, count: int) -> np.ndarray:
        clusterer = components.load(
            "clusterers", f"kmeans:k={count},restarts=40", seed=0, metric="euclidean",
            resources=Resources(),
        )  # fmt: skip
        return cluster_rows(vectors, rows, clusterer)

    return divider


def test_clusters_of_some_rows_are_those_of_a_copy_and_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    centres = rng.standard_normal((3, 6)) * 10
    vectors = (centres[rng.integers(0, 3, 300)] + rng.standard_normal((300, 6))).astype(np.float32)
    rows = np.flatnonzero(rng.random(300) < 0.5)
    clusters = make_kmeans_divider(vectors)(rows, 3)
    np.testing.assert_array_equal(
        clusters, make_kmeans_divider(vectors[rows])(np.arange(len(rows)), 3)
    )
    shards = ConcatenatedRows([vectors[:100], vectors[100:]])
    np.testing.assert_array_equal(clusters, make_kmeans_divider(shards)(rows, 3))
    theirs = KMeans(3, n_init=5, random_state=0).fit(vectors[rows]).labels_
    assert adjusted_rand_score(theirs, clusters) == pytest.approx(1.0)
