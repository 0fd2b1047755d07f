"""Ranking metrics worked out by hand, and against scikit-learn and the rules of trec_eval."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mltool.errors import UsageError
from mltool.retrieval.metrics import NAMED, find_depth, find_metric

# relevant at ranks 1, 3, 6 of 8 (counted from 1); at 2 of 8; none; at 1, 2
RANKS = np.array([[0, 2, 5], [1, 9, 9], [9, 9, 9], [0, 1, 9]])
RELEVANT = np.array([3, 1, 0, 2])

HAND = {
    "precision@1": [1, 0, np.nan, 1],
    "recall@1": [1, 0, np.nan, 1],
    "recall@2": [1, 1, np.nan, 1],
    "r_precision": [2 / 3, 0, np.nan, 1],
    "map@r": [(1 + 2 / 3) / 3, 0, np.nan, 1],
    "map": [(1 + 2 / 3 + 3 / 6) / 3, 1 / 2, np.nan, 1],
    "mrr": [1, 1 / 2, np.nan, 1],
}


@pytest.mark.parametrize("name", HAND)
def test_values_by_hand(name):
    np.testing.assert_allclose(find_metric(name)(RANKS, RELEVANT), HAND[name], rtol=1e-15)


def test_padding_is_not_looked_at():
    for name in HAND:
        zeros = np.where(np.arange(3) < RELEVANT[:, None], RANKS, 0)
        np.testing.assert_array_equal(
            find_metric(name)(zeros, RELEVANT), find_metric(name)(RANKS, RELEVANT)
        )


@pytest.mark.parametrize("name", HAND)
def test_no_queries_and_no_relevant_rows(name):
    empty = find_metric(name)(np.zeros((0, 0), np.int64), np.zeros(0, np.int64))
    assert empty.shape == (0,)
    assert np.isnan(find_metric(name)(np.zeros((2, 0), np.int64), np.zeros(2, np.int64))).all()


def test_map_is_scikit_learns_average_precision():
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(50) < 0.2
        truth[0] = True
        order = rng.permutation(50)
        ranks = np.sort(np.flatnonzero(truth[order]))[None]
        score = np.empty(50)
        score[order] = -np.arange(50)
        expected = average_precision_score(truth, score)
        found = find_metric("map")(ranks, np.array([truth.sum()]))
        np.testing.assert_allclose(found, expected, rtol=1e-12)


def test_trec_eval_counts_relevant_rows_that_are_not_retrieved():
    # 4 relevant, of which the run of 5 holds two at ranks 2 and 5: map = (1/2 + 2/5) / 4 and the
    # two others lie far below, where they add almost nothing
    ranks = np.array([[1, 4, 10**9, 10**9 + 1]])
    np.testing.assert_allclose(
        find_metric("map")(ranks, np.array([4])), (1 / 2 + 2 / 5) / 4, rtol=1e-8
    )
    np.testing.assert_allclose(find_metric("r_precision")(ranks, np.array([4])), 1 / 4)
    np.testing.assert_allclose(find_metric("mrr")(ranks, np.array([4])), 1 / 2)


@pytest.mark.parametrize("name", [*NAMED, "recall@1", "recall@7"])
def test_ranks_beyond_the_depth_do_not_matter(name):
    rng = np.random.default_rng(1)
    size = 40
    ranks = np.sort(np.array([rng.choice(size, 9, replace=False) for _ in range(60)]))
    relevant = rng.integers(0, 10, 60)
    deepest = find_depth(name, relevant, size)[:, None]
    moved = np.where(ranks >= deepest, ranks + 1000, ranks)
    np.testing.assert_array_equal(
        find_metric(name)(ranks, relevant), find_metric(name)(moved, relevant)
    )


@pytest.mark.parametrize("name", ["recall", "recall@0", "recall@x", "precision@2", ""])
def test_unknown_names_are_refused(name):
    with pytest.raises(UsageError, match="no ranking metric"):
        find_metric(name)
