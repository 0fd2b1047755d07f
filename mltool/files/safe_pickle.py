"""Read ground truth that is distributed as pickles without running the pickle.

A pickle is a program. This reader accepts plain containers, texts, numbers and numpy arrays, and
returns them as built-in types of Python; a pickle that names anything else is refused.
"""

import io
import os
import pickle
import pickletools
import sys
from collections.abc import Callable

import numpy as np

from mltool.errors import InputError, escape

LARGEST = 2**30  # bytes; the ground truths are below 20 MB

_OWN_ORDER = "<" if sys.byteorder == "little" else ">"
_BUILTINS = ("builtins", "__builtin__")
_NUMPY = ("numpy", "numpy.core.multiarray", "numpy._core.multiarray")


def read(path: str) -> object:
    """Read the value in a pickle: dict, list, tuple, set, str, bytes, bool, int, float or None.

    Arrays come as (nested) lists. Raises InputError for a damaged pickle, and for a pickle that
    names anything else.
    """
    try:
        if os.path.getsize(path) > LARGEST:
            raise InputError(f"{escape(path)}: too large for a pickled ground truth")
        with open(path, "rb") as file:
            data = file.read()
    except OSError as error:
        raise InputError(f"{escape(path)}: cannot be read ({error.strerror})") from None
    try:
        _check(data)
        return _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _Refused as error:
        raise InputError(
            f"{escape(path)}: a pickle that holds {error}; only plain values are read, because "
            "a pickle can run programs"
        ) from None
    # a torn or forged pickle fails in as many ways as there are operations in it
    except Exception:
        raise InputError(f"{escape(path)}: damaged, or no pickle; fetch it again") from None


class _Refused(Exception):
    """A pickle holds something that is not a plain value."""


def _check(data: bytes) -> None:
    """Refuse memo indexes larger than the file: the unpickler would allocate memory for them."""
    for operation, argument, _ in pickletools.genops(data):
        if "PUT" in operation.name and isinstance(argument, int) and argument > len(data):
            raise _Refused("an absurd number")


class _Dtype:
    """Replacement for np.dtype: its text, and the byte order in its state."""

    def __init__(self, text: str, *_: object) -> None:
        self.text, self.is_swapped = text, False

    def __setstate__(self, state: tuple) -> None:
        self.is_swapped = state[1] in ("<", ">") and state[1] != _OWN_ORDER

    def to_numpy(self) -> np.dtype:
        """Return the dtype if it is of numbers or text, else refuse it."""
        dtype = np.dtype(self.text)
        if dtype.kind not in "biufSU":
            raise _Refused(f"an array of {self.text}")
        return dtype.newbyteorder() if self.is_swapped else dtype


class _Array(list):
    """Replacement for np.ndarray, whose `__setstate__` trusts the pickle; this one checks."""

    def __setstate__(self, state: tuple) -> None:
        _, shape, dtype, fortran, content = state
        if isinstance(content, list) and dtype.text.startswith("O"):
            values = np.empty(len(content), object)
            values[:] = content
        else:
            raw = content.encode("latin1") if isinstance(content, str) else content
            values = np.frombuffer(raw, dtype.to_numpy())
        self[:] = values.reshape(shape, order="F" if fortran else "C").tolist()


def _make_scalar(dtype: _Dtype, content: bytes | str) -> object:
    raw = content.encode("latin1") if isinstance(content, str) else content
    return np.frombuffer(raw, dtype.to_numpy(), count=1)[0].item()


def _make_array(*_: object) -> _Array:
    return _Array()


def _encode_bytes(text: str, encoding: str) -> bytes:
    """Encode text to bytes: protocol 2 writes bytes as text."""
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"text as {encoding}")
    return text.encode("latin1")


def _make_bytes() -> bytes:
    """Return no bytes: protocol 2 writes empty bytes as a call without arguments."""
    return b""


_KNOWN: dict[tuple[str, str], Callable] = {
    ("_codecs", "encode"): _encode_bytes,
    **{(module, "set"): set for module in _BUILTINS},
    **{(module, "bytes"): _make_bytes for module in _BUILTINS},
    **{(module, "dtype"): _Dtype for module in _NUMPY},
    **{(module, "ndarray"): _Array for module in _NUMPY},
    **{(module, "_reconstruct"): _make_array for module in _NUMPY},
    **{(module, "scalar"): _make_scalar for module in _NUMPY},
}


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable:
        if (module, name) not in _KNOWN:
            raise _Refused(f"{module}.{name}")
        return _KNOWN[module, name]
