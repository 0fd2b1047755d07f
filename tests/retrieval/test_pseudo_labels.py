"""Which rows keep their cluster, what clusters are called, and purity against scikit-learn."""

import numpy as np
import pytest
from sklearn.metrics.cluster import contingency_matrix

from mltool.errors import InputError
from mltool.retrieval.clustering import purity
from mltool.retrieval.pseudo_labels import choose_rows, compare_with_truth


def test_noise_then_confidence_then_size() -> None:
    labels = np.array([0, 0, 0, 2, 2, 5, -1, 5])
    confidence = np.array([0.9, 0.5, 0.8, 0.9, 0.1, 0.6, 0.0, 0.5])
    pseudo = choose_rows(labels, confidence, min_confidence=0.5, min_size=2)
    assert pseudo.kept.tolist() == [True, True, True, False, False, True, False, True]
    assert pseudo.counts == {"noise": 1, "below_confidence": 1, "below_size": 1}
    assert pseudo.list_sizes().tolist() == [2, 3]
    labels, names = pseudo.rename()
    assert names == ("cluster-0", "cluster-5")
    assert labels.tolist() == [0, 0, 0, -1, -1, 1, -1, 1]
    assert pseudo.rename("abcdef".__getitem__)[1] == ("a", "f")


def test_numbers_may_be_large() -> None:
    labels = np.array([2**60, 5, 2**60])
    pseudo = choose_rows(labels, np.ones(3), min_confidence=0.0, min_size=2)
    assert pseudo.kept.tolist() == [True, False, True]
    assert pseudo.rename(str) == (pytest.approx([0, -1, 0]), (str(2**60),))


@pytest.mark.parametrize("seed", range(5))
def test_against_a_plain_loop(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels, confidence = rng.integers(-1, 9, 60), rng.random(60)
    pseudo = choose_rows(labels, confidence, min_confidence=0.3, min_size=4)
    sure = [row for row in range(60) if labels[row] >= 0 and confidence[row] >= 0.3]
    sizes = {label: sum(labels[row] == label for row in sure) for label in range(9)}
    kept = [row for row in sure if sizes[labels[row]] >= 4]
    assert np.flatnonzero(pseudo.kept).tolist() == kept
    assert sum(pseudo.counts.values()) + len(kept) == 60


def test_names_sort_as_their_numbers() -> None:
    pseudo = choose_rows(np.arange(101), np.ones(101), min_confidence=0.0, min_size=1)
    _, names = pseudo.rename()
    assert names[7] == "cluster-007"
    assert list(names) == sorted(names)


@pytest.mark.parametrize(
    ("labels", "least", "size"), [([-1, -1], 0, 1), ([0, 0], 1, 1), ([0, 1], 0, 2), ([], 0, 1)]
)
def test_nothing_left_is_refused(labels: list[int], least: float, size: int) -> None:
    with pytest.raises(InputError, match="no cluster is left"):
        choose_rows(
            np.array(labels, np.int64),
            np.full(len(labels), 0.5),
            min_confidence=least,
            min_size=size,
        )


@pytest.mark.parametrize("seed", range(5))
def test_purity_against_scikit_learn(seed: int) -> None:
    rng = np.random.default_rng(seed)
    truth, clusters = rng.integers(0, 6, 90), rng.integers(-2, 8, 90)
    table = contingency_matrix(truth, clusters)
    assert purity(truth, clusters) == pytest.approx(table.max(axis=0).sum() / 90)
    assert purity(truth, np.arange(90)) == 1.0


def test_rows_without_truth_or_cluster_do_not_count() -> None:
    clusters = np.array([0, 0, 1, 1, -1, 0])
    truth = np.array([b"a", b"a", b"b", b"b", b"a", b""])
    metrics = compare_with_truth(clusters, truth)
    assert metrics == pytest.approx({"nmi": 1.0, "ami": 1.0, "f1": 1.0, "purity": 1.0})
    nothing = compare_with_truth(np.array([0]), np.array([b""], "S1"))
    assert all(np.isnan(value) for value in nothing.values())
