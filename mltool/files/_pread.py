"""Reads and writes at an offset of an open file, and its space on the disk."""

import errno
import os

NO_RESERVING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def write_all(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at byte `offset`; the system may take it in pieces. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        view, offset = view[written:], offset + written


def read_all(file: int, offset: int, size: int) -> bytes:
    """Read `size` bytes from byte `offset`, fewer where the file ends. Raises OSError."""
    pieces = []
    while size > 0 and (piece := os.pread(file, size, offset)):
        pieces.append(piece)
        size, offset = size - len(piece), offset + len(piece)
    return b"".join(pieces)


def allocate(file: int, size: int) -> None:
    """Make the file `size` bytes long, with all of them on the disk. Raises OSError if full."""
    try:
        if size and hasattr(os, "posix_fallocate"):  # not on macOS
            os.posix_fallocate(file, 0, size)
    except OSError as error:
        if error.errno not in NO_RESERVING:
            raise
    os.ftruncate(file, size)


def sync(file: int) -> None:
    """Wait until the data written so far is on the disk. Raises OSError."""
    if hasattr(os, "fdatasync"):  # not on macOS
        os.fdatasync(file)
    else:
        os.fsync(file)
