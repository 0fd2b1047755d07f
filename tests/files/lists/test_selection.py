import os
from dataclasses import replace

import numpy as np
import pytest

from mltool.errors import InputError, UsageError
from mltool.files.lists.selection import (
    join,
    limit,
    replace_labels,
    select_classes,
    select_split,
    split_fold,
    splits,
)
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray


def images(names, labels=None, label_names=(), root="/data", **columns):
    names = names.split()
    texts = labels.split() if labels else [""] * len(names)
    label_names = label_names or tuple(sorted(set(texts) - {"", "-"}))
    return Manifest(
        names=np.array([name.encode() for name in names]),
        paths=StringArray.from_texts(f"{root}/{name}" for name in names),
        labels=np.array([label_names.index(t) if t in label_names else -1 for t in texts]),
        label_names=label_names,
        columns={key: np.array(column) for key, column in columns.items()},
        root=root,
    )


def labelled(manifest):
    texts = (*manifest.label_names, None)
    return {
        name.decode(): texts[label]
        for name, label in zip(manifest.names.tolist(), manifest.labels.tolist(), strict=True)
    }


def test_equal_label_texts_are_one_class():
    joined = join([images("a b", "dog cat"), images("c dd e", "ant dog -", root="/other")])
    assert labelled(joined) == {"a": "dog", "b": "cat", "c": "ant", "dd": "dog", "e": None}
    assert joined.label_names == ("cat", "dog", "ant")
    assert list(joined.paths)[2:4] == ["/other/c", "/other/dd"]
    assert joined.root == ""


def test_one_list_or_one_root_is_kept():
    one = images("a", "x")
    assert join([one]) is one
    assert join([one, images("b", "x")]).root == "/data"


def test_equal_names_of_one_file_are_one_image():
    joined = join([images("a b", "- dog"), images("b c a", "- cat cat"), images("a", "cat")])
    assert joined.names.tolist() == [b"a", b"b", b"c"]
    assert labelled(joined) == {"a": "cat", "b": "dog", "c": "cat"}


def test_links_to_one_file_are_one_image(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real/a").touch()
    os.symlink(tmp_path / "real", tmp_path / "link")
    parts = [images("a", root=str(tmp_path / folder)) for folder in ("real", "link")]
    assert len(join(parts)) == 1


@pytest.mark.parametrize(
    "other",
    [
        images("a c", "dog dog", root="/other"),
        images("a c", "cat dog"),
        replace(
            images("a c", "dog dog"),
            paths=StringArray.from_texts(["/p.h5\0" + "0", "/p.h5\0" + "1"]),
        ),
    ],
)
def test_equal_names_of_different_files_or_classes_are_refused(other):
    with pytest.raises(InputError, match=r"1 names stand for different .*\(a; /data/a \(dog\) and"):
        join([images("a b", "dog dog"), other])


def test_missing_columns_change_nothing():
    one = images("a", split=[b"train"], is_query=[False], weight=[0.5], cluster=[3], score=[1.0])
    other = images("b c", note=[b"x", b"yy"])
    columns = join([one, other]).columns
    assert columns["split"].tolist() == [b"train", b"", b""]
    assert columns["is_query"].tolist() == [False, True, True]
    assert columns["weight"].tolist() == [0.5, 1, 1]
    assert columns["cluster"].tolist() == [3, -1, -1]
    np.testing.assert_array_equal(columns["score"], [1, np.nan, np.nan])
    assert columns["note"].tolist() == [b"", b"x", b"yy"]
    flipped = join([other, one]).columns
    assert flipped["split"].tolist() == [b"", b"", b"train"]


def test_columns_of_two_types_become_text():
    joined = join([images("a", code=[12]), images("b", code=[b"x"])])
    assert joined.columns["code"].tolist() == [b"12", b"x"]


def test_splits():
    both = images("a b c d", split=[b"train", b"test", b"train", b""])
    assert splits(both) == ["test", "train"]
    assert splits(images("a")) == []
    assert select_split(both, "train").names.tolist() == [b"a", b"c"]
    assert select_split(both, "all") is both
    with pytest.raises(
        UsageError, match=r"no split 'tran'; did you mean train\?.*test, train, all"
    ):
        select_split(both, "tran")
    with pytest.raises(UsageError, match="none in this list"):
        select_split(images("a"), "train")
    assert splits(images("a b", split=[1, 2])) == ["1", "2"]


@pytest.mark.parametrize(
    ("present", "asked", "taken"),
    [
        ([b"background", b"evaluation"], "train", [b"a"]),
        ([b"background", b"evaluation"], "test", [b"b"]),
        ([b"query", b"gallery"], "test", [b"a", b"b"]),
        ([b"train", b"background"], "train", [b"a"]),
    ],
)
def test_official_names_of_splits(present, asked, taken):
    assert select_split(images("a b", split=present), asked).names.tolist() == taken


def test_a_split_without_queries_is_compared_with_itself():
    roles = {"is_query": [False, False, True], "is_gallery": [False, True, False]}
    lists = images("a b c", split=[b"train", b"gallery", b"query"], **roles)
    assert list(select_split(lists, "train").columns) == ["split"]
    assert list(select_split(lists, "gallery").columns) == ["split", "is_query", "is_gallery"]
    assert list(select_split(lists, "all").columns) == ["split", "is_query", "is_gallery"]


def test_classes_by_text_and_by_range():
    some = images("a b c d e", "w x y z -")
    assert select_classes(some, "x,z").names.tolist() == [b"b", b"d"]
    assert select_classes(some, "1-2").names.tolist() == [b"b", b"c"]
    assert select_classes(some, "0-0,3-3,x").names.tolist() == [b"a", b"b", b"d"]
    numbered = images("a b c", "7 8 9", label_names=("7", "8", "9"))
    assert select_classes(numbered, "8").names.tolist() == [b"b"]
    assert select_classes(numbered, "0-1").names.tolist() == [b"a", b"b"]
    hyphen = images("a b", "0-1 z")
    assert select_classes(hyphen, "0-1").names.tolist() == [b"a"]


@pytest.mark.parametrize("text", ["", "q", "2-4", "2-1", "-1-2", "x,", "1-"])
def test_classes_that_are_not_there(text):
    with pytest.raises(UsageError, match=r"there are 4 classes; .* from 0 to 3"):
        select_classes(images("a b c d", "w x y z"), text)


def test_limit():
    some = images("a b c")
    assert limit(some, 2).names.tolist() == [b"a", b"b"]
    assert len(limit(some, 9)) == 3
    with pytest.raises(UsageError, match="--limit 0"):
        limit(some, 0)


def test_labels_of_another_list(caplog):
    joined = replace_labels(images("a b c", "old old old"), images("c x a", "cat dog -"))
    assert labelled(joined) == {"a": None, "b": None, "c": "cat"}
    assert joined.label_names == ("cat", "dog")
    assert "1 of 3 images are not in the list of labels (b)" in caplog.text
    with pytest.raises(InputError, match=r"no image is in the list of labels \(a here, z there\)"):
        replace_labels(images("a b"), images("z", "cat"))


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_folds_are_disjoint_and_cover_all_classes(folds):
    texts = ["d", "b", "10", "9", "a", "", "c", "a", "é"]
    labels = [texts.index(text) if text else -1 for text in texts]
    names = tuple(dict.fromkeys(text for text in texts if text))
    listed = Manifest(
        names=np.array([f"{row}.jpg".encode() for row in range(9)]),
        paths=StringArray.from_texts(f"/{row}.jpg" for row in range(9)),
        labels=np.array(
            [names.index(texts[row]) if label >= 0 else -1 for row, label in enumerate(labels)]
        ),
        label_names=names,
        columns={},
        root="",
    )
    groups = []
    for fold in range(folds):
        learned, held_out = split_fold(listed, fold, folds)
        assert set(learned.label_names).isdisjoint(held_out.label_names)
        assert len(learned) + len(held_out) == 9
        assert (held_out.labels >= 0).all()
        assert (learned.labels < 0).sum() == 1
        groups.append(sorted(held_out.label_names))
    assert [text for group in groups for text in group] == sorted(
        names
    )  # consecutive in text order
    sizes = [len(group) for group in groups]
    assert max(sizes) - min(sizes) <= 1
    with pytest.raises(InputError, match="7 classes cannot be cut into 8 folds"):
        split_fold(listed, 0, 8)
