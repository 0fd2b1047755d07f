import hashlib
from dataclasses import replace

import numpy as np
import pytest

from mltool.files import crop_boxes
from mltool.files import names as names_module
from mltool.files.manifest import Manifest, Summary
from mltool.files.names import StringArray


def listed(names, labels, label_names=("cat", "dog")):
    return Manifest(
        names=np.array(names, "S"),
        paths=StringArray.from_texts(f"/data/{name}" for name in names),
        labels=np.array(labels, np.int64),
        label_names=label_names,
        columns={"number": np.arange(len(names), dtype=np.float64)},
        root="/data",
    )


def test_columns_of_different_lengths_are_a_bug():
    with pytest.raises(ValueError, match="lengths"):
        Manifest(
            np.array([b"a"]), StringArray.from_texts([]), np.zeros(1, np.int64), ("x",), {}, ""
        )


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
    monkeypatch.setattr(names_module, "BLOCK", 7)
    assert images.digest() == whole


def test_summary():
    images = listed(["a", "b", "c", "d", "e"], [0, 0, 2, -1, 0], ("x", "y", "z"))
    assert images.summary() == Summary(5, 2, 1, 2.0, 3, 1)
    text = "5 images, 2 classes (1 to 3 each, median 2), 1 without label"
    assert str(images.summary()) == text
    assert str(listed(["a"], [0]).summary()) == "1 image, 1 class (1 to 1 each, median 1)"
    assert str(listed([], []).summary()) == "0 images"
    assert str(listed(["a"], [-1]).summary()) == "1 image, 1 without label"
