import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltool.files.names import printable, utf8_name


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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain é 😀.jpg", "plain é 😀.jpg"),
        ("\x1b[31m", "\\x1b[31m"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202egpj.exe", "\\u202egpj.exe"),
        ("\udce9", "\\udce9"),
        ("\x9b", "\\x9b"),
    ],
)
def test_nothing_but_visible_characters_reach_a_terminal(text, shown):
    assert printable(text) == shown
    assert printable(text).encode()


@given(st.text())
def test_printable_is_printable(text):
    assert printable(text).isprintable()
