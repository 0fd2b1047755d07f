"""A pair has one exact score, whoever asks; values that cannot be compared are refused."""

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.exact.vector_set import (
    find_first_equal_rows,
    make_vector_sets,
    score_pairs,
    score_table,
)

METRICS = ("cosine", "dot", "euclidean")


@pytest.mark.parametrize("dim", [1, 7, 100, 5000, 10000])
@pytest.mark.parametrize("metric", METRICS)
def test_a_pair_has_the_same_score_bits_everywhere(dim, metric):
    rng = np.random.default_rng(6)
    vectors = rng.standard_normal((23, dim)).astype(np.float16)
    names = np.array([f"{n:02d}" for n in range(23)], "S")
    side, _ = make_vector_sets((vectors, names), None, metric=metric)
    rows = np.arange(23)
    table = score_table(side, rows, side, rows)
    np.testing.assert_array_equal(table, table.T)
    for number in (1, 2, 5):
        some = rng.integers(0, 23, number)
        np.testing.assert_array_equal(
            score_pairs(side, some, side, some[::-1]), table[some, some[::-1]]
        )
    left, right = np.divmod(np.arange(23 * 23), 23)
    np.testing.assert_array_equal(score_pairs(side, left, side, right), table[left, right])


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_by_name(value):
    vectors = np.ones((3, 2), np.float32)
    vectors[1, 1] = value
    with pytest.raises(InputError, match="that of b;"):
        make_vector_sets((vectors, np.array(["a", "b", "c"], "S")), None, metric="cosine")


def test_different_dimensions_are_refused():
    names = np.array(["a"], "S")
    with pytest.raises(InputError, match=r"queries are 3-d .* 2-d ones"):
        make_vector_sets((np.ones((1, 3)), names), (np.ones((1, 2)), names), metric="dot")


def test_equal_rows_point_to_the_first_of_them():
    vectors = np.array([[1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [5.0, 6.0], [3.0, 4.0], [1.0, 2.0]])
    names = np.arange(6).astype("S")
    rows, _ = make_vector_sets((vectors, names), None, metric="dot")
    assert find_first_equal_rows(rows).tolist() == [0, 1, 0, 3, 1, 0]
    assert find_first_equal_rows(rows.take(np.array([0, 1, 3]))) is None
