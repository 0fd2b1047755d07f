"""Matrices in several places read as one."""

import numpy as np
import pytest

from mltool.files.concatenated_rows import ConcatenatedRows, release

WHOLE = np.arange(60, dtype=np.float32).reshape(20, 3)
STACKED = ConcatenatedRows([WHOLE[:4], WHOLE[4:4], WHOLE[4:5], WHOLE[5:]])


def test_it_looks_like_the_whole():
    assert (len(STACKED), STACKED.shape, STACKED.dtype) == (20, (20, 3), np.float32)
    np.testing.assert_array_equal(np.asarray(STACKED), WHOLE)
    assert np.asarray(STACKED, np.float64).dtype == np.float64


@pytest.mark.parametrize(
    "rows",
    [
        *(slice(0, 3), slice(2, 9), slice(4, 4), slice(18, 99), slice(None), slice(-3, None)),
        *(slice(1, 20, 4), np.array([19, 0, 4, 4, 5]), np.array([], int), np.arange(20) % 3 == 0),
    ],
    ids=str,
)
def test_rows_are_those_of_the_whole(rows):
    np.testing.assert_array_equal(STACKED[rows], WHOLE[rows])
    assert STACKED[rows].dtype == np.float32


def test_a_slice_in_one_matrix_is_a_view():
    assert np.shares_memory(STACKED[6:9], WHOLE)
    assert np.shares_memory(STACKED.view(slice(2, 9)).matrices[0], WHOLE)
    np.testing.assert_array_equal(np.asarray(STACKED.view(slice(2, 9))), WHOLE[2:9])
    assert STACKED.view(slice(7, 7)).shape == (0, 3)


def test_chosen_rows_are_not_copied_before_they_are_read():
    rows = np.array([8, 0, 5, 5, 9, 2])
    chosen = ConcatenatedRows(STACKED.matrices, rows)
    assert all(one is other for one, other in zip(chosen.matrices, STACKED.matrices, strict=True))
    assert chosen.shape == (6, 3)
    for of in (slice(0, 6), slice(1, 4), slice(0, 6, 2), np.array([3, 0]), rows == 5):
        np.testing.assert_array_equal(chosen[of], WHOLE[rows][of])
    np.testing.assert_array_equal(np.asarray(chosen), WHOLE[rows])
    np.testing.assert_array_equal(np.asarray(chosen.view(slice(2, 5))), WHOLE[rows[2:5]])


def test_matrices_of_different_types_become_the_wider():
    both = ConcatenatedRows([WHOLE[:2].astype(np.float16), WHOLE[2:]])
    for rows in (slice(0, 2), slice(1, 5), np.array([0, 3])):
        assert both[rows].dtype == np.float32
        np.testing.assert_array_equal(both[rows], WHOLE[rows])


def test_different_widths_are_refused():
    with pytest.raises(ValueError, match="different widths"):
        ConcatenatedRows([WHOLE, WHOLE[:, :2]])


def test_a_copy_is_not_made_in_secret():
    with pytest.raises(ValueError, match="without a copy"):
        np.asarray(STACKED, copy=False)


def test_what_was_written_into_a_private_map_is_not_given_back(tmp_path):
    np.save(tmp_path / "a.npy", WHOLE)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="c")
    mapped += 1
    release(mapped)
    np.testing.assert_array_equal(mapped, WHOLE + 1)


def test_released_maps_keep_their_values(tmp_path):
    np.save(tmp_path / "a.npy", WHOLE)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    both = ConcatenatedRows([mapped[:5], mapped[5:]])
    release(both)
    release(mapped)
    np.testing.assert_array_equal(np.asarray(both), WHOLE)
