import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.errors import InputError
from mltool.files import names as module
from mltool.files.names import StringArray, check_unique, check_utf8, examples, find, utf8_name

RAW = st.binary(max_size=12).map(lambda raw: raw.replace(b"\0", b"x"))


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        (b"plain.jpg", b"plain.jpg"),
        ("é.jpg".encode(), "é.jpg".encode()),
        (b"\xe9.jpg", b"%E9.jpg"),
        ("é".encode() + b"\xff\xfe", "é%FF%FE".encode()),
        (b"-rf \t\n", b"-rf \t\n"),
    ],
)
def test_names_are_utf8(raw, name):
    assert utf8_name(raw) == name


@given(st.binary())
def test_any_bytes_give_a_utf8_name(raw):
    utf8_name(raw).decode()


@given(st.lists(RAW, max_size=20), st.data())
def test_strings_equal_a_list(texts, data):
    strings = StringArray.from_texts(texts)
    shown = [raw.decode(errors="surrogateescape") for raw in texts]
    assert len(strings) == len(texts)
    assert list(strings) == shown == [strings[row] for row in range(len(texts))]
    assert strings.to_array().tolist() == texts
    rows = data.draw(st.lists(st.integers(0, len(texts) - 1), max_size=30)) if texts else []
    assert list(strings.take(np.array(rows, np.int64))) == [shown[row] for row in rows]
    assert list(StringArray.join([strings, StringArray.from_texts([]), strings])) == shown + shown


def test_strings_in_several_blocks(monkeypatch):
    monkeypatch.setattr(module, "BLOCK", 3)
    texts = [f"image{number}" * (number % 4) for number in range(10)]
    strings = StringArray.from_texts(texts)
    assert list(strings) == texts
    assert [raw.decode() for raw in strings.to_array().tolist()] == texts
    assert list(strings.take(np.arange(9, -1, -1))) == texts[::-1]


def test_strings_hold_no_objects_and_refuse_what_cannot_be():
    strings = StringArray.from_texts(["a", "b"])
    assert strings.data.dtype == np.uint8
    assert strings.offsets.dtype == np.int64
    for row in (-1, 2):
        with pytest.raises(IndexError):
            strings[row]
    with pytest.raises(InputError, match="NUL"):
        StringArray.from_texts(["a\0b"]).to_array()


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


def test_names_must_be_utf8():
    check_utf8(np.array(["é".encode(), b"b"]), "list.csv")
    check_utf8(np.array([], "S1"), "list.csv")
    with pytest.raises(InputError, match=r"list.csv: a name is not UTF-8"):
        check_utf8(np.array([b"a", b"\xe9"]), "list.csv")


def test_examples_are_few_and_printable():
    names = np.array([b"\x1b[31mred", b"b", b"c", b"d"])
    assert examples(names) == "\\x1b[31mred, b, c, ..."
    assert examples(names[1:]) == "b, c, d"
