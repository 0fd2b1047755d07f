"""The one place where HDF5 bytes of unknown origin are read.

HDF5 can make a file read other files (external links and storage, virtual datasets) and declare
more data than there is. Here only hard links are followed, only plain datasets with known filters
are read, and sizes are checked against the stored bytes and a cap before anything is allocated.
"""

import contextlib
import math
import os
from collections.abc import Iterator
from typing import TypeVar

import h5py
import numpy as np

from mltool.errors import InputError
from mltool.files.reading import open_input

SIGNATURE = b"\x89HDF\r\n\x1a\n"
FILTERS = frozenset({h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32})
CLASSES = frozenset({h5py.h5t.INTEGER, h5py.h5t.FLOAT, h5py.h5t.STRING, h5py.h5t.ENUM})
INFLATION = 1032  # bytes that deflate can make of one
GIBIBYTE = 2**30
LONGEST_ATTRIBUTE = 2**16  # bytes, what HDF5 can hold in an object's header
MOST_CHILDREN = 10_000
REMEDY = "it is damaged or from another program; make or copy it again"

Scalar = TypeVar("Scalar", str, int, float, bool)


@contextlib.contextmanager
def open_file(path: str | os.PathLike[str]) -> Iterator[h5py.File]:
    """An HDF5 file, read-only and without file locks, to be read by the functions below.

    Raises InputError when it is missing, not HDF5, truncated or damaged.
    """
    if not is_hdf5(path):
        raise InputError(f"{path} is not an HDF5 file; name one that mltool wrote")
    with _report_errors(os.fspath(path)):
        file = h5py.File(path, "r", locking=False)
    with file:
        yield file


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Whether the file begins as HDF5 does. Raises InputError when it cannot be read."""
    with open_input(path) as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def check_format(file: h5py.File, name: str, version: int) -> None:
    """Raise InputError unless attribute `format` is `name` and the file no newer than `version`."""
    found = read_attribute(file, "format", "")
    if found != name:
        what = f"is an {found} file" if found else "was not written by mltool"
        raise InputError(f"{file.filename} {what}, but an {name} file is needed here")
    made = read_attribute(file, "format_version", 1)
    if made > version:
        raise InputError(f"{file.filename} was made by a newer mltool (format {made}); update it")


def has_object(file: h5py.File, name: str) -> bool:
    """Whether there is an object `name` (`a/b`). Raises InputError if a link leads to it."""
    return _find(file, name) is not None


def list_children(file: h5py.File, name: str) -> list[str]:
    """The sorted names in group `name`, none if there is no such group. Raises InputError."""
    group = _find(file, name)
    if group is None:
        return []
    if not isinstance(group, h5py.h5g.GroupID):
        raise _unreadable(file, f"/{name} is no group")
    with _report_errors(file.filename):
        if len(group) > MOST_CHILDREN:
            raise _unreadable(file, f"/{name} holds more than {MOST_CHILDREN} objects")
        return sorted(child.decode() for child in group)


def read_dataset(
    file: h5py.File, name: str, *, ndim: int, kinds: str, cap: int | None = None
) -> np.ndarray:
    """Read a dataset whole, in native byte order; strings come as numpy bytes ('S').

    `kinds` are the numpy kinds that fit ("f", "iu", "S", "b"), `cap` the most bytes to allocate
    (default: four times the file and 1 GiB). Raises InputError.
    """
    found = open_dataset(file, name, ndim=ndim, kinds=kinds, cap=cap)
    return read_rows(found, 0, found.shape[0] if ndim else 0)


def open_dataset(
    file: h5py.File, name: str, *, ndim: int, kinds: str, cap: int | None = None
) -> h5py.Dataset:
    """A dataset that passed every check, unread; `rows` reads from it. Raises InputError."""
    found = _find(file, name)
    if found is None:
        raise _unreadable(file, f"it has no /{name}")
    if not isinstance(found, h5py.h5d.DatasetID):
        raise _unreadable(file, f"/{name} is no dataset")
    cap = cap or _default_cap(file)
    with _report_errors(file.filename):
        if not _is_plain(found.get_type()):
            raise _unreadable(
                file, f"/{name} holds something else than numbers or fixed-length text"
            )
        result = h5py.Dataset(found)
        _check_type(file, result, ndim, kinds)
        _check_storage(file, result, cap)
    return result


def read_rows(found: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    """Rows start..stop of a `stored` dataset in native byte order. Raises InputError."""
    with _report_errors(found.file.filename):
        read = np.asarray(found[start:stop] if found.shape else found[()])
    return read.astype(read.dtype.newbyteorder("="), copy=False)


def map_dataset(found: h5py.Dataset) -> np.ndarray | None:
    """A read-only memory map of a `stored` dataset; None unless it is contiguous and native.

    The map is of the file that is open, even if another one has taken its name since.
    """
    offset = found.id.get_offset()
    if offset is None or not found.dtype.isnative:
        return None
    return _map(found.file, found.dtype, offset, found.shape)


def read_around(found: h5py.Dataset) -> tuple[bytes, bytes]:
    """The bytes of the file before and after a contiguous dataset. Raises InputError."""
    whole = _map(found.file, np.dtype(np.uint8), 0, None)
    offset = found.id.get_offset()
    start = len(whole) if offset is None else offset
    return whole[:start].tobytes(), whole[start + found.id.get_storage_size() :].tobytes()


def read_attribute(file: h5py.File, name: str, default: Scalar) -> Scalar:
    """The root attribute `name`, of the default's type; `default` if absent. Raises InputError."""
    with _report_errors(file.filename):
        if not h5py.h5a.exists(file.id, name.encode()):
            return default
        found = h5py.h5a.open(file.id, name.encode())
        plain = _is_plain(found.get_type()) and found.shape == ()
        if not plain or found.get_storage_size() > LONGEST_ATTRIBUTE:
            raise _unreadable(file, f"its attribute {name} is no number or fixed-length text")
        value = file.attrs[name]
        value = value.decode() if isinstance(value, bytes) else value
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str):
            value.encode()  # text that is not UTF-8 fails here, not at its user
    if isinstance(default, bool) and value in (0, 1):
        value = bool(value)
    if not isinstance(value, type(default)):
        raise _unreadable(file, f"its attribute {name} is no {type(default).__name__}")
    return value


def _map(
    file: h5py.File, dtype: np.dtype, offset: int, shape: tuple[int, ...] | None
) -> np.ndarray:
    descriptor = os.dup(file.id.get_vfd_handle())
    with _report_errors(file.filename), os.fdopen(descriptor, "rb") as same_file:
        return np.memmap(same_file, dtype, "r", offset, shape)


def _find(file: h5py.File, name: str) -> h5py.h5g.GroupID | h5py.h5d.DatasetID | None:
    found = file.id
    with _report_errors(file.filename):
        for part in name.encode().split(b"/"):
            if not isinstance(found, h5py.h5g.GroupID) or not found.links.exists(part):
                return None
            if found.links.get_info(part).type != h5py.h5l.TYPE_HARD:
                raise _unreadable(file, f"/{name} is a link, which could lead to other files")
            found = h5py.h5o.open(found, part)
    return found


def _is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Whether values of this type lie where they belong, and not in HDF5's global heap.

    A few wrong bytes there send HDF5 into an endless loop, so variable-length text is not read.
    """
    variable = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    return kind.get_class() in CLASSES and not variable


def _check_type(file: h5py.File, found: h5py.Dataset, ndim: int, kinds: str) -> None:
    kind, size = found.dtype.kind, found.dtype.itemsize
    if kind not in kinds or (kind == "f" and size not in (2, 4, 8)):
        raise _unreadable(file, f"{found.name} holds values of type {found.dtype}")
    if found.shape is None or len(found.shape) != ndim:
        raise _unreadable(file, f"{found.name} has shape {found.shape}, not {ndim} dimensions")


def _check_storage(file: h5py.File, found: h5py.Dataset, cap: int) -> None:
    properties = found.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise _unreadable(file, f"{found.name} keeps its data in other files")
    if not filters <= FILTERS:
        raise _unreadable(file, f"{found.name} is compressed by a filter other than gzip")
    declared, held = math.prod(found.shape) * found.dtype.itemsize, found.id.get_storage_size()
    if declared > cap:
        raise _unreadable(file, f"{found.name} declares {declared:,} bytes, more than {cap:,}")
    if held < declared / (INFLATION if h5py.h5z.FILTER_DEFLATE in filters else 1):
        raise _unreadable(file, f"{found.name} declares {declared:,} bytes but holds {held:,}")
    if found.chunks and filters:
        _check_chunks(file, found, cap)


def _check_chunks(file: h5py.File, found: h5py.Dataset, cap: int) -> None:
    unpacked = math.prod(found.chunks) * found.dtype.itemsize
    largest = 0

    def measure(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal largest
        largest = max(largest, chunk.size)

    found.id.chunk_iter(measure)
    # zlib gets no limit from HDF5: a chunk may unpack to more than it declares
    if max(unpacked, largest * INFLATION) > cap:
        raise _unreadable(
            file, f"{found.name} has chunks that could unpack to more than {cap:,} bytes"
        )


def _default_cap(file: h5py.File) -> int:
    return 4 * os.stat(file.filename).st_size + GIBIBYTE


def _unreadable(file: h5py.File, what: str) -> InputError:
    return InputError(f"cannot read {file.filename}: {what}; {REMEDY}")


@contextlib.contextmanager
def _report_errors(path: str) -> Iterator[None]:
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"cannot read {path}: {reason}; {REMEDY}") from error
