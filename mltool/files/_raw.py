"""Plain reads and writes at a place in an open file."""

import errno
import os

NO_RESERVING = (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP)


def write_all(file: int, data: bytes | memoryview, place: int) -> None:
    """Write all of `data` at byte `place`; the system may take it in pieces. Raises OSError."""
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, place)
        view, place = view[written:], place + written


def read_all(file: int, place: int, size: int) -> bytes:
    """`size` bytes from byte `place`, fewer where the file ends. Raises OSError."""
    parts = []
    while size > 0 and (part := os.pread(file, size, place)):
        parts.append(part)
        size, place = size - len(part), place + len(part)
    return b"".join(parts)


def reserve(file: int, size: int) -> None:
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
