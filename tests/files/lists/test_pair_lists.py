"""Pairs of an image list: declared by a file, kept by everything that makes a list of a list."""

import hashlib
from dataclasses import replace

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files.lists.pair_lists import declare
from mltool.files.lists.selection import join, limit, select_classes
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray


def images(names, classes, pairs=None, root="/data"):
    texts = sorted(set(classes) - {"-"})
    return Manifest(
        names=np.array([name.encode() for name in names]),
        paths=StringArray.from_texts(f"{root}/{name}" for name in names),
        labels=np.array([texts.index(c) if c in texts else -1 for c in classes]),
        label_names=tuple(texts),
        columns={},
        root=root,
        pairs=None if pairs is None else np.array(pairs, np.int64).reshape(-1, 2),
    )


def named(manifest):
    return [tuple(name.decode() for name in pair) for pair in manifest.names[manifest.pairs]]


LIST = images("abcdef", "xxxyyy", [(0, 1), (2, 1), (4, 5), (3, 4), (0, 1)])


def test_taking_images_keeps_the_pairs_among_them():
    found = LIST.take(np.array([5, 1, 4, 0]))
    assert named(found) == [("a", "b"), ("e", "f"), ("a", "b")]
    assert named(LIST.take(np.array([1, 0, 0, 1, 1, 0], bool))) == [("d", "e")]
    assert LIST.take(np.array([0, 3])).pairs.shape == (0, 2)
    assert named(limit(LIST, 3)) == [("a", "b"), ("c", "b"), ("a", "b")]
    assert named(select_classes(LIST, "y").compact()) == [("e", "f"), ("d", "e")]
    assert images("ab", "xx").take(np.array([0])).pairs is None


def test_joined_lists_keep_their_pairs(caplog):
    other = images("gh", "xx", [(1, 0)], root="/other")
    assert named(join([LIST, other])) == [*named(LIST), ("h", "g")]
    assert not caplog.records
    found = join([images("gh", "xx"), LIST])
    assert named(found) == named(LIST)
    assert "2 images are of lists without pairs" in caplog.text
    assert join([images("gh", "xx"), images("ij", "xx")]).pairs is None


def test_pairs_of_an_image_in_two_lists_are_its_own():
    again = images("fbz", "yxx", [(1, 2), (2, 1)])
    assert set(named(join([LIST, again]))) == {*named(LIST), ("b", "z"), ("z", "b")}
    assert sorted(named(join([LIST, LIST]))) == sorted(set(named(LIST)))


def test_the_digest_covers_pairs_and_is_the_old_one_without():
    plain = replace(LIST, pairs=None)
    lines = b"".join(b"%c\0%c\0" % pair for pair in zip(b"abcdef", b"xxxyyy", strict=True))
    assert plain.digest() == hashlib.sha256(lines).hexdigest()
    assert len({plain.digest(), LIST.digest(), replace(LIST, pairs=LIST.pairs[:-1]).digest()}) == 3
    assert replace(LIST, pairs=LIST.pairs[:, ::-1]).digest() != LIST.digest()
    # neither the order of images nor that of pairs is told
    assert LIST.take(np.array([3, 5, 1, 0, 2, 4])).digest() == LIST.digest()
    assert replace(LIST, pairs=LIST.pairs[::-1]).digest() == LIST.digest()


def test_the_summary_counts_them():
    assert str(LIST.summary()).endswith(", 5 pairs")
    assert "pair" not in str(replace(LIST, pairs=None).summary())


def written(tmp_path, content):
    path = tmp_path / "pairs.csv"
    path.write_bytes(content)
    return str(path)


def test_a_file_declares_pairs_by_name_in_the_place_of_others(tmp_path):
    text = "\ufeffscore, positive ,anchor\r\n1,b,a\r\n\r\n2,a,c\r\n3,b,a\r\n"
    found = declare(LIST, written(tmp_path, text.encode()))
    assert named(found) == [("a", "b"), ("c", "a"), ("a", "b")]
    assert found.pairs.dtype == np.int64
    assert named(
        declare(replace(LIST, pairs=None), written(tmp_path, b"anchor,positive\ne,f"))
    ) == [("e", "f")]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "no header anchor,positive"),
        (b"a,b\n", "no header anchor,positive"),
        (b"anchor,positive,anchor\na,b,c\n", "no header"),
        (b"anchor,positive\n", "lists no pairs"),
        (b"anchor,positive\na,b\na\n", "line 3: not 2 texts"),
        (b"anchor,positive\na,b\0\n", "pairs.csv"),
        (b'anchor,positive\n"a,b\n', "no UTF-8 CSV"),
        (b"anchor,positive\n\xff,b\n", "no UTF-8 CSV"),
        (b"anchor,positive\na,q\nr,b\nq,a\n", r"2 names are not in the image list \(q, r\)"),
        (b"anchor,positive\na,b\nc,c\n", "1 pairs, such as c and c, pair an image with itself"),
        (b"anchor,positive\na,b\nc,d\n", "such as c and d, are not of one known class"),
        (b"anchor,positive\ng,h\n", "such as g and h, are not of one known class"),
    ],
)
def test_what_is_no_list_of_pairs_is_refused(content, message, tmp_path):
    with pytest.raises(InputError, match=message):
        declare(images("abcdefgh", "xxxyyy--"), written(tmp_path, content))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(InputError, match=r"nothing\.csv"):
        declare(LIST, str(tmp_path / "nothing.csv"))
