"""Texts and numbers as an HDF5 file can hold them."""

from collections.abc import Iterable

import h5py
import numpy as np

from mltool.errors import InputError
from mltool.files.names import StringArray


def to_bytes_array(texts: np.ndarray | Iterable[str | bytes]) -> np.ndarray:
    """Convert texts to UTF-8 bytes, 'S' [N]. Raises InputError for a NUL inside."""
    if isinstance(texts, np.ndarray) and texts.dtype.kind == "S":
        return texts
    return StringArray.from_texts(texts).to_array()


def to_column(column: np.ndarray) -> np.ndarray:
    """Convert a column to 'S', bool or numbers [N]. Raises InputError for anything else."""
    values = np.asarray(column)
    if values.dtype.kind in "UO" and all(isinstance(value, str | bytes) for value in values.flat):
        return to_bytes_array(values.tolist())
    if values.dtype.kind not in "Sbiuf":
        raise InputError(f"a column holds values of type {values.dtype}; give text or numbers")
    return values


def narrow(array: np.ndarray) -> np.ndarray:
    """Return a contiguous, little-endian array, texts as wide as the longest: as files store it."""
    if array.dtype.kind == "S":
        return np.ascontiguousarray(array, f"S{max(1, np.char.str_len(array).max(initial=0))}")
    return np.ascontiguousarray(array, array.dtype.newbyteorder("<"))


def put_attribute(file: h5py.File, name: str, value: str | int | float | np.bytes_) -> None:
    """Store a root attribute; text has a fixed length, the only kind that is safe to read.

    A `str` is stored as UTF-8, bytes as ASCII.
    """
    if not isinstance(value, str):
        file.attrs[name] = value
    else:
        raw = value.encode()
        file.attrs.create(name, raw, dtype=h5py.string_dtype("utf-8", max(1, len(raw))))
