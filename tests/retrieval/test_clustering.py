"""Cluster metrics against scikit-learn and a count over all pairs."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from sklearn.metrics.cluster import pair_confusion_matrix

from mltool.retrieval.clustering import ami, f1, nmi

CASES = [
    ([0, 0, 1, 1], [5, 5, 9, 9]),
    ([0, 0, 1, 1], [0, 1, 0, 1]),
    ([0, 0, 0, 0], [1, 1, 1, 1]),
    ([0, 1, 2, 3], [1, 1, 1, 1]),
    ([0, 0, 0, 0], [1, 2, 3, 4]),
    ([7], [3]),
]


def random_cases():
    rng = np.random.default_rng(0)
    for _ in range(20):
        count = int(rng.integers(2, 80))
        yield rng.integers(0, 9, count), rng.integers(-3, rng.integers(-2, 9), count)


@pytest.mark.parametrize(("labels", "clusters"), CASES + list(random_cases()))
def test_against_scikit_learn(labels, clusters):
    labels, clusters = np.array(labels), np.array(clusters)
    assert nmi(labels, clusters) == pytest.approx(
        normalized_mutual_info_score(labels, clusters), abs=1e-12
    )
    assert ami(labels, clusters) == pytest.approx(adjusted_mutual_info_score(labels, clusters))
    (_, apart_joined), (together_split, together) = pair_confusion_matrix(labels, clusters)
    total = 2 * together + apart_joined + together_split
    expected = 2 * together / total if total else np.nan
    assert f1(labels, clusters) == pytest.approx(expected, nan_ok=True)


def test_f1_counts_pairs():
    labels, clusters = np.array([0, 0, 0, 1, 1]), np.array([0, 0, 1, 1, 1])
    pairs = list(itertools.combinations(range(5), 2))
    same_class = {pair for pair in pairs if labels[pair[0]] == labels[pair[1]]}
    same_cluster = {pair for pair in pairs if clusters[pair[0]] == clusters[pair[1]]}
    hit = len(same_class & same_cluster)
    precision, recall = hit / len(same_cluster), hit / len(same_class)
    assert f1(labels, clusters) == pytest.approx(2 * precision * recall / (precision + recall))


def test_nothing_is_undefined():
    empty = np.zeros(0, np.int64)
    for metric in (nmi, ami, f1):
        assert np.isnan(metric(empty, empty))
