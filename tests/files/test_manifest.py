import hashlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.errors import InputError
from mltool.files import crop_boxes
from mltool.files import manifest as module
from mltool.files.manifest import Manifest, StringArray, Summary, check_unique, examples, find

RAW = st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"x"))


def listed(names, labels, label_names=("cat", "dog")):
    return Manifest(
        names=np.array(names, "S"),
        paths=StringArray.of(f"/data/{name}" for name in names),
        labels=np.array(labels, np.int64),
        label_names=label_names,
        columns={"number": np.arange(len(names), dtype=np.float64)},
        root="/data",
    )


@given(st.lists(RAW, max_size=20), st.data())
def test_strings_equal_a_list(texts, data):
    strings = StringArray.of(texts)
    shown = [raw.decode(errors="surrogateescape") for raw in texts]
    assert len(strings) == len(texts)
    assert list(strings) == shown == [strings[row] for row in range(len(texts))]
    assert strings.fixed().tolist() == texts
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=30)) if texts else []
    assert list(strings.take(np.array(rows, np.int64))) == [shown[row] for row in rows]
    assert list(StringArray.join([strings, StringArray.of([]), strings])) == shown + shown


def test_strings_in_several_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    texts = [f"image{number}" * (number % 4) for number in range(10)]
    strings = StringArray.of(texts)
    assert list(strings) == texts
    assert [raw.decode() for raw in strings.fixed().tolist()] == texts
    assert list(strings.take(np.arange(9, -1, -1))) == texts[::-1]


def test_strings_hold_no_objects_and_refuse_what_cannot_be():
    strings = StringArray.of(["a", "b"])
    assert strings.data.dtype == np.uint8
    assert strings.offsets.dtype == np.int64
    for row in (-1, 2):
        with pytest.raises(IndexError):
            strings[row]
    with pytest.raises(InputError, match="NUL"):
        StringArray.of(["a\0b"]).fixed()


def test_columns_of_different_lengths_are_a_bug():
    with pytest.raises(ValueError, match="lengths"):
        Manifest(np.array([b"a"]), StringArray.of([]), np.zeros(1, np.int64), ("x",), {}, "")


def test_take_rows_and_mask():
    images = listed(["a", "b", "c"], [0, 1, -1])
    taken = images.take(np.array([2, 0]))
    assert taken.names.tolist() == [b"c", b"a"]
    assert list(taken.paths) == ["/data/c", "/data/a"]
    assert taken.labels.tolist() == [-1, 0]
    assert taken.columns["number"].tolist() == [2, 0]
    assert images.take(np.array([False, True, True])).names.tolist() == [b"b", b"c"]
    assert len(images.take(np.zeros(3, bool))) == 0


def test_compact_drops_unused_classes_and_keeps_the_order():
    images = listed(["a", "b", "c"], [3, 1, -1], ("w", "x", "y", "z")).compact()
    assert images.label_names == ("x", "z")
    assert images.labels.tolist() == [1, 0, -1]


def test_digest_is_that_of_sorted_names_and_label_texts():
    expected = hashlib.sha256(b"a\0cat\0b\0\0c\0dog\0").hexdigest()
    assert listed(["c", "a", "b"], [1, 0, -1]).digest() == expected
    assert listed(["b", "a", "c"], [-1, 1, 0], ("dog", "cat")).digest() == expected
    assert listed(["c", "a", "b"], [1, 1, -1]).digest() != expected


def test_digest_knows_weights_and_boxes():
    bare = listed(["c", "a", "b"], [1, 0, -1])
    boxed = {key: np.array([1.0, np.nan, 3.0]) for key in crop_boxes.COLUMNS}
    seen = {bare.digest()}
    for columns in (
        {"weight": np.array([1.0, 0.5, 1.0])},
        {"weight": np.array([1.0, 1.0, 0.5])},
        boxed,
        boxed | {"y_2": np.array([1.0, np.nan, 4.0])},
    ):
        changed = replace(bare, columns=columns)
        assert changed.digest() not in seen
        seen.add(changed.digest())
        turned = np.array([2, 0, 1])
        assert changed.take(turned).digest() == changed.digest()
    neutral = {"weight": np.ones(3), "split": np.array([b"x"] * 3)}
    neutral |= {key: np.full(3, np.nan) for key in crop_boxes.COLUMNS}
    assert replace(bare, columns=neutral).digest() == bare.digest()


def test_digest_does_not_depend_on_blocks(monkeypatch):
    names = [f"{number:03d}" for number in range(100)]
    images = listed(names, [number % 2 for number in range(100)])
    whole = images.digest()
    monkeypatch.setattr(module, "BLOCK", 7)
    assert images.digest() == whole


def test_summary():
    images = listed(["a", "b", "c", "d", "e"], [0, 0, 2, -1, 0], ("x", "y", "z"))
    assert images.summary() == Summary(5, 2, 1, 2.0, 3, 1)
    text = "5 images, 2 classes (1 to 3 each, median 2), 1 without label"
    assert str(images.summary()) == text
    assert str(listed(["a"], [0]).summary()) == "1 image, 1 class (1 to 1 each, median 1)"
    assert str(listed([], []).summary()) == "0 images"
    assert str(listed(["a"], [-1]).summary()) == "1 image, 1 without label"


@settings(max_examples=50)
@given(st.lists(RAW, unique=True, max_size=12), st.lists(RAW, max_size=12))
def test_find_equals_a_dictionary(names, wanted):
    # numpy's 'S' drops NULs at the end; RAW has none
    rows = find(np.array(names, "S"), np.array(wanted, "S"))
    place = {name: row for row, name in enumerate(names)}
    assert rows.tolist() == [place.get(name, -1) for name in wanted]


def test_names_must_be_unique():
    check_unique(np.array([b"a", b"b"]), "list.csv")
    with pytest.raises(InputError, match=r"list.csv: 2 names stand more than once \(a, b\)"):
        check_unique(np.array([b"b", b"a", b"b", b"a", b"c", b"a"]), "list.csv")


def test_examples_are_few_and_printable():
    names = np.array([b"\x1b[31mred", b"b", b"c", b"d"])
    assert examples(names) == "\\x1b[31mred, b, c, ..."
    assert examples(names[1:]) == "b, c, d"
