"""Columns of an image list between text and numpy: typed by their name, or inferred."""

import re
from collections.abc import Callable, Iterator

import numpy as np

from mltool.errors import InputError

FLAGS = {b"": False, b"0": False, b"1": True, b"false": False, b"true": True}
WHOLE = re.compile(rb"-?(0|[1-9][0-9]{0,17})")  # a code such as 007 stays text
DECIMAL = re.compile(rb"-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?")

Reader = Callable[[bytes], bool | float | np.int64]


def from_text(key: str, texts: np.ndarray, where: Callable[[int], str]) -> np.ndarray:
    """Convert cells ['S', N] to text, bool, int64 or float64 [N].

    `where` gives file and line of a row for messages. An empty cell of a column in `KNOWN` becomes
    False, NaN or -1; an empty cell of any other column makes the whole column text. Raises
    InputError for a cell of a column in `KNOWN` that does not fit.
    """
    if key in KNOWN:
        dtype, read, wanted = KNOWN[key]
        values: np.ndarray = np.empty(len(texts), dtype)
        for row, text in enumerate(texts.tolist()):
            try:
                values[row] = read(text)
            except (ValueError, KeyError, OverflowError):
                shown = text.decode(errors="replace")
                raise InputError(f"{where(row)}: {key} is {shown!r}, not {wanted}") from None
        return values
    cells = texts.tolist()
    if key != "split" and all(map(WHOLE.fullmatch, cells)):
        return texts.astype(np.int64)
    if key != "split" and all(map(DECIMAL.fullmatch, cells)):
        return texts.astype(np.float64)
    return texts


def to_text(column: np.ndarray) -> Iterator[str]:
    """Return the cells of a column as `from_text` reads them back."""
    if column.dtype.kind == "S":
        return (cell.decode(errors="surrogateescape") for cell in column.tolist())
    if column.dtype.kind == "b":
        return map(str, column.astype(np.int64).tolist())
    texts = map(str, column.astype(str).tolist())  # of a float32 the shortest text
    return ("" if text == "nan" else text for text in texts)


def _flag(text: bytes) -> bool:
    return FLAGS[text.lower()]


def _number(text: bytes) -> float:
    return float(text or b"nan")


def _whole(text: bytes) -> np.int64:
    return np.int64(int(text or b"-1"))


KNOWN: dict[str, tuple[type, Reader, str]] = {
    **dict.fromkeys(("is_query", "is_gallery"), (np.bool_, _flag, "0 or 1")),
    **dict.fromkeys(("x_1", "y_1", "x_2", "y_2"), (np.float64, _number, "a number")),
    **dict.fromkeys(("weight", "confidence"), (np.float64, _number, "a number")),
    "cluster": (np.int64, _whole, "a whole number"),
}
