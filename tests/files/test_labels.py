"""Numbering of label texts, and the labels of several parts as one."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltool.errors import InputError
from mltool.files.labels import decode_label_names, join_labels, number_labels


def part(labels, *names):
    return SimpleNamespace(labels=np.array(labels, np.int64), label_names=names)


@pytest.mark.parametrize(
    ("texts", "labels", "names"),
    [
        (["b", "a", "b"], [1, 0, 1], ("a", "b")),
        (["10", "9", "-1", "10"], [2, 1, 0, 2], ("-1", "9", "10")),
        (["10", "9", "x"], [0, 1, 2], ("10", "9", "x")),
        (["10", "9", "09"], [1, 2, 0], ("09", "10", "9")),
        (["", "b", "", "a"], [-1, 1, -1, 0], ("a", "b")),
        (["", "3", "11"], [-1, 0, 1], ("3", "11")),
        (["", ""], [-1, -1], ()),
        (["é", "z"], [1, 0], ("z", "é")),
        ([], [], ()),
    ],
)
def test_number_labels(texts, labels, names):
    found, found_names = number_labels(np.array([text.encode() for text in texts], "S"))
    assert found.tolist() == labels
    assert found.dtype == np.int64
    assert found_names == names


@given(st.lists(st.lists(st.sampled_from(["", "a", "b", "cat", "7"]), max_size=6), min_size=1))
def test_joined_parts_keep_their_texts(texts):
    parts = []
    for some in texts:
        labels, names = number_labels(np.array([text.encode() for text in some], "S"))
        parts.append(SimpleNamespace(labels=labels, label_names=names))
    labels, names = join_labels(parts)
    assert [names[k] if k >= 0 else "" for k in labels] == [text for some in texts for text in some]
    assert len(set(names)) == len(names)


def test_bare_numbers_fit_each_other_and_the_unlabelled_but_no_texts():
    labels, names = join_labels([part([3, -1]), part([-1], "a"), part([0])])
    assert labels.tolist() == [3, -1, -1, 0]
    assert names == ()
    labels, names = join_labels([part([-1, -1]), part([0, 1], "a", "b"), part([0], "b")])
    assert labels.tolist() == [-1, -1, 0, 1, 1]
    assert names == ("a", "b")
    with pytest.raises(InputError, match="but others only numbers"):
        join_labels([part([0], "a"), part([1])])
    with pytest.raises(InputError, match=r"x\.h5 has label names, but y\.h5 only numbers"):
        join_labels([part([0], "a"), part([1])], ["x.h5", "y.h5"])


def test_label_names_must_be_utf8():
    assert decode_label_names(np.array(["é".encode(), b"b"]), "f.h5") == ("é", "b")
    assert decode_label_names(np.array([]), "f.h5") == ()
    with pytest.raises(InputError, match=r"f\.h5: a label name is not UTF-8"):
        decode_label_names(np.array([b"\xe9"]), "f.h5")
