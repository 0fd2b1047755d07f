"""What messages quote from files is safe to print."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mltool.errors import escape


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
    assert escape(text) == shown
    assert escape(text).encode()


@given(st.text())
def test_escaped_text_is_printable(text):
    assert escape(text).isprintable()
