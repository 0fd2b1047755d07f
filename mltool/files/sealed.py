"""The container of embeddings, packs, indexes and hits: arrays, attributes and one stream.

HDF5 lays the file out in memory with the bytes of the stream reserved, but not written. What HDF5
wrote around the stream is the frame. Head, stream and tail of the file are then plain writes, so a
full disk or a killed process never meets HDF5:

    frame = lay_out(arrays, attributes, Stream("images", (total,), np.dtype(np.uint8)))
    file.write(frame.head)
    file.write(...)  # the bytes of the stream
    file.write(frame.tail)

Equal content gives equal bytes. The digest of a file covers what the file holds by name, and not
how a version of HDF5 lays the content out; the checksum of a frame covers the layout.
"""

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import h5py
import numpy as np

from mltool.files import canonical_json, safe_h5
from mltool.files._arrays import put_attribute
from mltool.files._sparse import SparseFile

UNFINISHED = "unfinished:"  # begins what stands for a checksum until the stream is written
CHECKSUM = "frame_sha256"  # attribute
MARK_BYTES = 64  # length of the hexadecimal sha256 that replaces a mark

Attribute = str | int | float | np.bytes_


@dataclass(frozen=True)
class Stream:
    """A contiguous dataset whose values are written outside HDF5."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype  # little-endian

    @property
    def nbytes(self) -> int:
        """Size in bytes."""
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class Frame:
    """The bytes of a file around its stream."""

    head: bytes  # before the stream
    tail: bytes  # after the stream
    stream_bytes: int
    offsets: Mapping[str, int]  # first byte of each array

    @property
    def size(self) -> int:
        """Size of the whole file in bytes."""
        return len(self.head) + self.stream_bytes + len(self.tail)

    def overwrite(self, offset: int, data: bytes) -> "Frame":
        """Return the frame with `data` at byte `offset` of its head."""
        return replace(self, head=self.head[:offset] + data + self.head[offset + len(data) :])

    def replace_mark(self, mark: str, text: str) -> "Frame":
        """Return the frame with `text` instead of the equally long `mark`, which stands once."""
        old, new = mark.encode(), text.encode()
        return replace(self, head=self.head.replace(old, new), tail=self.tail.replace(old, new))

    def seal(self, mark: str) -> "Frame":
        """Return the frame with its checksum instead of `mark`; nothing may change afterwards."""
        return self.replace_mark(mark, _checksum(self.head, self.tail, mark))


def lay_out(
    arrays: Mapping[str, np.ndarray],
    attributes: Mapping[str, Attribute],
    stream: Stream,
    *,
    stream_first: bool = False,
    alignment: int = 1,
) -> Frame:
    """Let HDF5 lay out a file; array `columns/x` lies in a group, all arrays are little-endian.

    The file begins with attributes and arrays and ends with the stream, or with `stream_first` the
    other way round. Every dataset begins at a multiple of `alignment` bytes.
    """
    memory = SparseFile()
    layout = {"alignment_threshold": 1, "alignment_interval": alignment}
    with h5py.File(memory, "w", libver="earliest", **layout) as file:
        if stream_first:
            start = _reserve(file, stream)
            offsets = _put_arrays(file, arrays)
            _put_attributes(file, attributes)
        else:
            _put_attributes(file, attributes)
            offsets = _put_arrays(file, arrays)
            start = _reserve(file, stream)
    start = memory.size if start is None else start  # an empty dataset has no bytes
    tail = memory.read_range(start + stream.nbytes, memory.size)
    return Frame(memory.read_range(0, start), tail, stream.nbytes, offsets)


def to_bytes(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Attribute]) -> bytes:
    """Return a whole file that has no stream."""
    # HDF5 aligns small arrays otherwise in its own memory than in a file object
    with h5py.File("memory", "w", driver="core", backing_store=False, libver="earliest") as file:
        _put_arrays(file, arrays)
        _put_attributes(file, attributes)
        file.flush()
        return file.id.get_file_image()


def read_attributes(file: h5py.File, defaults: Mapping[str, Attribute]) -> dict[str, Attribute]:
    """Read attributes of the types of their defaults. Raises InputError."""
    return {name: _read_attribute(file, name, value) for name, value in defaults.items()}


@dataclass(frozen=True)
class Field:
    """What an array of a file may hold."""

    kinds: str  # of numpy: "S", "iu", "f", ...
    ndim: int = 1
    required: bool = True


def read_arrays(file: h5py.File, fields: Mapping[str, Field]) -> dict[str, np.ndarray]:
    """Read the arrays of `fields`; `columns/*` stands for all of a group. Raises InputError."""
    arrays = {}
    for pattern, expected in fields.items():
        group = pattern.removesuffix("/*")
        names = [pattern]
        if group != pattern:
            names = [f"{group}/{child}" for child in safe_h5.list_children(file, group)]
        for name in names:
            if expected.required or safe_h5.has_object(file, name):
                arrays[name] = safe_h5.read_dataset(
                    file, name, ndim=expected.ndim, kinds=expected.kinds
                )
    return arrays


def select_group(arrays: Mapping[str, np.ndarray], group: str) -> dict[str, np.ndarray]:
    """Return the arrays of one group by their names inside it."""
    prefix = f"{group}/"
    return {
        name.removeprefix(prefix): array
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def sha256(
    arrays: Mapping[str, np.ndarray],
    *,
    before: Sequence[object],
    after: Sequence[object] = (),
    shapes: bool = True,
) -> bytes:
    """Return the sha256 of arrays by name, whatever their layout in a file.

    The hash begins with the JSON of `before`, a table of the arrays' types (and `shapes`), and
    `after`: attributes, and what is to be covered of the stream.
    """
    names = sorted(arrays)
    table = [
        [name, arrays[name].dtype.str, *([list(arrays[name].shape)] if shapes else [])]
        for name in names
    ]
    total = hashlib.sha256(canonical_json.to_json([*before, table, *after]).encode())
    for name in names:
        total.update(np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8).data)
    return total.digest()


def mark(name: str, content_sha256: bytes) -> str:
    """Return what stands for the checksum in attribute `name` until its value is known.

    The mark is made from a hash over the content, so that the file holds each mark once.
    """
    return (UNFINISHED + hashlib.sha256(name.encode() + content_sha256).hexdigest())[:MARK_BYTES]


def is_frame_intact(stream: h5py.Dataset) -> bool:
    """Return whether all bytes around an open stream fit the checksum in the file."""
    recorded = safe_h5.read_attribute(stream.file, CHECKSUM, "")
    return bool(recorded) and _checksum(*safe_h5.read_around(stream), recorded) == recorded


def _checksum(head: bytes, tail: bytes, stored: str) -> str:
    """Hash head and tail but for the place of the checksum, which holds `stored` now."""
    total = hashlib.sha256()
    for segment in (head, tail):
        before, _, after = segment.partition(stored.encode())
        total.update(before)
        total.update(after)
    return total.hexdigest()


def _read_attribute(file: h5py.File, name: str, default: Attribute) -> Attribute:
    match default:  # each type for itself: no file decides the type of what is read
        case str():
            return safe_h5.read_attribute(file, name, default)
        case int():
            return safe_h5.read_attribute(file, name, default)
        case float():
            return safe_h5.read_attribute(file, name, default)
    raise TypeError(f"attribute {name} has a default of type {type(default).__name__}")


def _reserve(file: h5py.File, stream: Stream) -> int | None:
    """Create the dataset without writing it; return its first byte, None if it has none."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple(stream.shape)
    kind = h5py.h5t.py_create(stream.dtype, logical=True)
    dataset = h5py.h5d.create(file.id, stream.name.encode(), kind, space, properties)
    return dataset.get_offset()


def _put_arrays(file: h5py.File, arrays: Mapping[str, np.ndarray]) -> dict[str, int]:
    """Create a dataset for each array; return the first byte of each, 0 for an empty one."""
    offsets = {}
    for name, array in arrays.items():
        dataset = file.create_dataset(name, data=array.view(_h5_type(array)))
        offsets[name] = dataset.id.get_offset() or 0
    return offsets


def _put_attributes(file: h5py.File, attributes: Mapping[str, Attribute]) -> None:
    for name, value in attributes.items():
        put_attribute(file, name, value)


def _h5_type(array: np.ndarray) -> np.dtype:
    return h5py.string_dtype("utf-8", array.itemsize) if array.dtype.kind == "S" else array.dtype
