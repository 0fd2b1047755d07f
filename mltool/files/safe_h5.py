"""Read HDF5 files of unknown origin; no other module does.

HDF5 can make a file read other files (external links and storage, virtual datasets) and declare
more data than they hold. Here only hard links are followed, only plain datasets with known filters
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
    """Open an HDF5 file, read-only and without file locks, for the functions below.

    Raises InputError if the file is missing, not HDF5, truncated or damaged.
    """
    if not is_hdf5(path):
        raise InputError(f"{path} is not an HDF5 file; name one that mltool wrote")
    with _report_errors(os.fspath(path)):
        file = h5py.File(path, "r", locking=False)
    with file:
        yield file


def is_hdf5(path: str | os.PathLike[str]) -> bool:
    """Return whether a file begins as HDF5 does. Raises InputError if it cannot be read."""
    with open_input(path) as file:
        return file.read(len(SIGNATURE)) == SIGNATURE


def check_format(file: h5py.File, name: str, version: int) -> None:
    """Raise InputError unless attribute `format` is `name` and the file no newer than `version`."""
    actual = read_attribute(file, "format", "")
    if actual != name:
        what = f"is an {actual} file" if actual else "was not written by mltool"
        raise InputError(f"{file.filename} {what}, but an {name} file is needed here")
    made = read_attribute(file, "format_version", 1)
    if made > version:
        raise InputError(f"{file.filename} was made by a newer mltool (format {made}); update it")


def has_object(file: h5py.File, name: str) -> bool:
    """Return whether there is an object `name` (`a/b`). Raises InputError if it is a link."""
    return _find(file, name) is not None


def list_children(file: h5py.File, name: str) -> list[str]:
    """List the sorted names in group `name`, none if there is no group. Raises InputError."""
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
    stored = open_dataset(file, name, ndim=ndim, kinds=kinds, cap=cap)
    return read_rows(stored, 0, stored.shape[0] if ndim else 0)


def open_dataset(
    file: h5py.File, name: str, *, ndim: int, kinds: str, cap: int | None = None
) -> h5py.Dataset:
    """Return a dataset that passed every check, unread, for `read_rows`. Raises InputError."""
    node = _find(file, name)
    if node is None:
        raise _unreadable(file, f"it has no /{name}")
    if not isinstance(node, h5py.h5d.DatasetID):
        raise _unreadable(file, f"/{name} is no dataset")
    cap = cap or _default_cap(file)
    with _report_errors(file.filename):
        if not _is_plain(node.get_type()):
            raise _unreadable(
                file, f"/{name} holds something else than numbers or fixed-length text"
            )
        dataset = h5py.Dataset(node)
        _check_type(file, dataset, ndim, kinds)
        _check_storage(file, dataset, cap)
    return dataset


def read_rows(dataset: h5py.Dataset, start: int, stop: int) -> np.ndarray:
    """Read rows start..stop of an open dataset in native byte order. Raises InputError."""
    with _report_errors(dataset.file.filename):
        read = np.asarray(dataset[start:stop] if dataset.shape else dataset[()])
    return read.astype(read.dtype.newbyteorder("="), copy=False)


def map_dataset(dataset: h5py.Dataset) -> np.ndarray | None:
    """Map an open dataset read-only into memory; None unless it is contiguous and native.

    The map is of the open file, even if another file has taken its name since.
    """
    offset = dataset.id.get_offset()
    if offset is None or not dataset.dtype.isnative:
        return None
    return _map(dataset.file, dataset.dtype, offset, dataset.shape)


def read_around(dataset: h5py.Dataset) -> tuple[bytes, bytes]:
    """Read the bytes of the file before and after a contiguous dataset. Raises InputError."""
    whole = _map(dataset.file, np.dtype(np.uint8), 0, None)
    offset = dataset.id.get_offset()
    start = len(whole) if offset is None else offset
    return whole[:start].tobytes(), whole[start + dataset.id.get_storage_size() :].tobytes()


def read_attribute(file: h5py.File, name: str, default: Scalar) -> Scalar:
    """Read root attribute `name`, of the type of `default`, which stands for an absent one.

    Raises InputError.
    """
    with _report_errors(file.filename):
        if not h5py.h5a.exists(file.id, name.encode()):
            return default
        stored = h5py.h5a.open(file.id, name.encode())
        plain = _is_plain(stored.get_type()) and stored.shape == ()
        if not plain or stored.get_storage_size() > LONGEST_ATTRIBUTE:
            raise _unreadable(file, f"its attribute {name} is no number or fixed-length text")
        value = file.attrs[name]
        value = value.decode() if isinstance(value, bytes) else value
        value = value.item() if isinstance(value, np.generic) else value
        if isinstance(value, str):
            value.encode()  # text that is not UTF-8 fails here, not in the caller
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
    node = file.id
    with _report_errors(file.filename):
        for key in name.encode().split(b"/"):
            if not isinstance(node, h5py.h5g.GroupID) or not node.links.exists(key):
                return None
            if node.links.get_info(key).type != h5py.h5l.TYPE_HARD:
                raise _unreadable(file, f"/{name} is a link, which could lead to other files")
            node = h5py.h5o.open(node, key)
    return node


def _is_plain(kind: h5py.h5t.TypeID) -> bool:
    """Return whether values of this type lie in the dataset, and not in the global heap of HDF5.

    Variable-length text lies in the heap, where a few wrong bytes send HDF5 into an endless loop.
    """
    variable = isinstance(kind, h5py.h5t.TypeStringID) and kind.is_variable_str()
    return kind.get_class() in CLASSES and not variable


def _check_type(file: h5py.File, dataset: h5py.Dataset, ndim: int, kinds: str) -> None:
    kind, size = dataset.dtype.kind, dataset.dtype.itemsize
    if kind not in kinds or (kind == "f" and size not in (2, 4, 8)):
        raise _unreadable(file, f"{dataset.name} holds values of type {dataset.dtype}")
    if dataset.shape is None or len(dataset.shape) != ndim:
        raise _unreadable(file, f"{dataset.name} has shape {dataset.shape}, not {ndim} dimensions")


def _check_storage(file: h5py.File, dataset: h5py.Dataset, cap: int) -> None:
    properties = dataset.id.get_create_plist()
    filters = {properties.get_filter(i)[0] for i in range(properties.get_nfilters())}
    if properties.get_external_count() or properties.get_layout() == h5py.h5d.VIRTUAL:
        raise _unreadable(file, f"{dataset.name} keeps its data in other files")
    if not filters <= FILTERS:
        raise _unreadable(file, f"{dataset.name} is compressed by a filter other than gzip")
    declared = math.prod(dataset.shape) * dataset.dtype.itemsize
    held = dataset.id.get_storage_size()
    if declared > cap:
        raise _unreadable(file, f"{dataset.name} declares {declared:,} bytes, more than {cap:,}")
    if held < declared / (INFLATION if h5py.h5z.FILTER_DEFLATE in filters else 1):
        raise _unreadable(file, f"{dataset.name} declares {declared:,} bytes but holds {held:,}")
    if dataset.chunks and filters:
        _check_chunks(file, dataset, cap)


def _check_chunks(file: h5py.File, dataset: h5py.Dataset, cap: int) -> None:
    unpacked = math.prod(dataset.chunks) * dataset.dtype.itemsize
    largest = 0

    def measure(chunk: h5py.h5d.StoreInfo) -> None:
        nonlocal largest
        largest = max(largest, chunk.size)

    dataset.id.chunk_iter(measure)
    # zlib gets no limit from HDF5: a chunk may unpack to more than it declares
    if max(unpacked, largest * INFLATION) > cap:
        raise _unreadable(
            file, f"{dataset.name} has chunks that could unpack to more than {cap:,} bytes"
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
