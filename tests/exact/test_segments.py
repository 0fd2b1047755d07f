"""Sums, searches and marks inside segments against a plain loop over each segment."""

import itertools

import numpy as np
import pytest

from mltool.exact.segments import merge_ranges, search_rows, sum_within, unsort


@pytest.mark.parametrize("seed", range(5))
def test_sums_begin_anew_in_each_segment(seed):
    rng = np.random.default_rng(seed)
    starts = np.concatenate([[0], np.cumsum(rng.integers(0, 5, 8))])  # some segments are empty
    steps = rng.integers(0, 9, starts[-1])
    expected = [np.cumsum(steps[a:b]) for a, b in itertools.pairwise(starts) if a < b]
    np.testing.assert_array_equal(sum_within(steps, starts), np.concatenate(expected))


@pytest.mark.parametrize("width", [1, 2, 7, 16])
def test_a_search_in_many_rows_is_one_in_each(width):
    rng = np.random.default_rng(width)
    table = np.sort(rng.integers(0, 6, (4, width)).astype(float), axis=1)
    rows, values = rng.integers(0, 4, 50), rng.integers(-1, 8, 50).astype(float)
    expected = [
        row * width + np.searchsorted(table[row], value)
        for row, value in zip(rows, values, strict=True)
    ]
    np.testing.assert_array_equal(search_rows(table, rows, values), expected)


@pytest.mark.parametrize("seed", range(5))
def test_merged_ranges_list_each_position_once(seed):
    rng = np.random.default_rng(seed)
    low, high = np.sort(rng.integers(0, 30, (2, 6)), axis=0)
    expected = sorted({n for a, b in zip(low, high, strict=True) for n in range(a, b)})
    assert merge_ranges(low, high, 30).tolist() == expected


def test_positions_of_a_sorted_copy_lead_back():
    table = np.random.default_rng(0).permutation(24).reshape(4, 6).astype(float)
    marked = np.array([0, 5, 13, 23])
    rows, columns = unsort(table, marked)
    np.testing.assert_array_equal(table[rows, columns], np.sort(table, axis=1).ravel()[marked])
