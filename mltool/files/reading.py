"""Open inputs: a path that is no readable regular file is refused before any library reads it."""

import contextlib
import os
import stat
from collections.abc import Iterator
from io import BufferedReader

from mltool.errors import InputError


@contextlib.contextmanager
def open_input(path: str | os.PathLike[str]) -> Iterator[BufferedReader]:
    """Open the regular file `path` for reading bytes, without waiting for a pipe or device.

    Raises InputError if the file is missing, unreadable or not regular, and for errors of reading
    inside the block.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise InputError(f"cannot read {os.fspath(path)}: it is not a regular file")
            yield file
    except OSError as error:
        raise as_input_error(path, error) from error


def as_input_error(path: str | os.PathLike[str], error: OSError) -> InputError:
    """Return the InputError that says why `path` could not be read."""
    reason = error.strerror or str(error)
    return InputError(f"cannot read {os.fspath(path)}: {reason}; check the path and its rights")


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK | os.O_NOCTTY)  # a pipe without a writer would wait
