import contextlib
import os
import pickle
import struct

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import safe_pickle

PLAIN = (dict, list, tuple, set, str, bytes, bool, int, float, type(None))
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def write(tmp_path, value, protocol=2):
    path = tmp_path / "ground_truth.pkl"
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return str(path)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_come_back(tmp_path, protocol):
    value = {
        "train": {"cids": ["a1", "b2"], "cluster": [0, 1], "qidxs": [0], "pidxs": [1]},
        "gnd": [{"bbx": [1.5, 2.0, 3.0, 4.0], "easy": [1], "hard": []}],
        "more": (None, True, b"\x00\xff", -(2**70), {1, 2}, "é"),
    }
    assert safe_pickle.read(write(tmp_path, value, protocol)) == value


@pytest.mark.parametrize("protocol", PROTOCOLS[:5])
@pytest.mark.parametrize(
    "array",
    [
        np.arange(6, dtype=np.int64).reshape(2, 3),
        np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        np.array([], dtype=np.float64),
        np.array([1, 2], dtype=">i4"),
        np.array([True, False]),
        np.array(["ab", "c"]),
        np.array([b"ab", b"c"]),
        np.array([[1, 2], "x"], dtype=object),
        np.array(3.5),
    ],
    ids=str,
)
def test_arrays_come_as_lists(tmp_path, array, protocol):
    if array.ndim == 0:
        array = array[()]
    found = safe_pickle.read(write(tmp_path, {"easy": array}, protocol))
    assert found == {"easy": array.tolist()}


def test_a_pickle_of_python_2_is_read(tmp_path):
    path = tmp_path / "old.pkl"
    path.write_bytes(b"(dp0\nS'easy'\np1\n(lp2\nI3\nasS'name'\np3\nS'all_1'\np4\ns.")
    assert safe_pickle.read(str(path)) == {"easy": [3], "name": "all_1"}


class Attack:
    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load, __import__])
def test_nothing_is_run(tmp_path, function, protocol):
    trace = tmp_path / "trace"
    attack = Attack(function, f"open({str(trace)!r}, 'w')")
    with pytest.raises(InputError, match=r"ground_truth.pkl: a pickle that holds .*\."):
        safe_pickle.read(write(tmp_path, {"train": attack}, protocol))
    assert not trace.exists()


def test_a_dtype_with_objects_inside_is_refused(tmp_path):
    array = np.zeros(2, dtype=[("x", "O")])
    with pytest.raises(InputError, match=r"damaged|holds"):
        safe_pickle.read(write(tmp_path, array))


def test_a_forged_memo_takes_no_memory(tmp_path):
    path = tmp_path / "memo.pkl"
    path.write_bytes(b"\x80\x02]r" + struct.pack("<I", 2**31) + b".")
    with pytest.raises(InputError, match="an absurd number"):
        safe_pickle.read(str(path))


@pytest.mark.parametrize("keep", [0, 1, 10, 40])
def test_a_torn_file_is_one_error(tmp_path, keep):
    path = tmp_path / "torn.pkl"
    path.write_bytes(pickle.dumps({"easy": np.arange(20)}, protocol=2)[:keep])
    with pytest.raises(InputError, match=r"torn\.pkl: damaged, or no pickle; fetch it again"):
        safe_pickle.read(str(path))


def test_every_damaged_byte_is_a_value_or_one_error(tmp_path):
    data = pickle.dumps({"easy": np.arange(4), "name": ["x"]}, protocol=2)
    path = tmp_path / "bits.pkl"
    for place in range(len(data)):
        path.write_bytes(data[:place] + bytes([data[place] ^ 0x11]) + data[place + 1 :])
        with contextlib.suppress(InputError):
            assert isinstance(safe_pickle.read(str(path)), PLAIN)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"gone\.pkl: cannot be read"):
        safe_pickle.read(str(tmp_path / "gone.pkl"))
