"""Named arrays and metadata in one safetensors file with one possible byte sequence.

The safetensors library writes its header in random key order, so the header is written here; the
files open in that library, in timm and in transformers. The metadata is one JSON text under the
key `mltool`, with a digest over everything in the file.
"""

import hashlib
import math
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from io import BufferedReader

import numpy as np

from mltool.errors import InputError
from mltool.files import atomic, canonical_json
from mltool.files.reading import open_input

FORMAT_VERSION = 1
LONGEST_HEADER = 100_000_000  # bytes, the library's own limit
DTYPES = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2",
    "I8": "<i1", "U64": "<u8", "U32": "<u4", "U16": "<u2", "U8": "<u1", "BOOL": "|b1",
}  # fmt: skip
CODES = {np.dtype(name): code for code, name in DTYPES.items()}
PICKLES = (b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")

Meta = dict[str, object]


@dataclass(frozen=True)
class _Entry:
    """Where one array lies, in bytes after the header."""

    name: str
    dtype: np.dtype
    shape: tuple[int, ...]
    start: int
    stop: int


def write(
    path: str | os.PathLike[str], arrays: Mapping[str, np.ndarray], *, meta: Mapping[str, object]
) -> str:
    """Write arrays and metadata, whole or not at all, and return the digest.

    The metadata in the file holds the digest under the key `digest`.

    Arrays are float, int, unsigned or bool of 8 to 64 bits. Raises ResourceError.
    """
    ordered = _sort_arrays(arrays)
    digest, header = _header(ordered, meta)
    with atomic.open_output(path) as file:
        file.write(header)
        for array in ordered.values():
            file.write(_as_bytes(array))
    return digest


def read(
    path: str | os.PathLike[str], *, select: Callable[[str], bool] = lambda name: True
) -> tuple[dict[str, np.ndarray], Meta]:
    """Read all arrays, writable, and the metadata ({} if mltool did not write the file).

    Arrays whose names `select` does not take are passed over. Raises InputError for a pickle and
    for a damaged, hostile or newer file.
    """
    with open_input(path) as file:
        entries, meta, base = _read_header(path, file)
        arrays = {}
        for entry in filter(lambda entry: select(entry.name), entries):
            array = np.empty(entry.shape, entry.dtype)
            file.seek(base + entry.start)
            if array.size and file.readinto(_as_bytes(array)) != array.nbytes:
                raise _unreadable(path, "it ended while it was read")
            arrays[entry.name] = array
    return arrays, meta


def read_meta(path: str | os.PathLike[str]) -> Meta:
    """Read the metadata alone, after every check that needs no array. Raises InputError."""
    with open_input(path) as file:
        return _read_header(path, file)[1]


def verify(path: str | os.PathLike[str], *, full: bool) -> None:
    """Check header and sizes and, if `full`, every byte of the file. Raises InputError."""
    if "digest" not in read_meta(path):
        raise _unreadable(path, "mltool did not write it, so there is no digest to check")
    if full:
        arrays, meta = read(path)
        _, header = _header(_sort_arrays(arrays), meta)  # with the digest that the content has
        with open_input(path) as file:
            if file.read(len(header)) != header:
                raise _unreadable(path, "its content does not fit its digest")


def is_safetensors(start: bytes) -> bool:
    """Return whether a file that starts with these 9 bytes or more can be safetensors."""
    return len(start) > 8 and start[8:9] == b"{" and _length(start) <= LONGEST_HEADER


def _sort_arrays(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return little-endian, contiguous arrays, wide types first: all are aligned in the file."""
    ordered = {}
    for name in sorted(arrays, key=lambda name: (-arrays[name].dtype.itemsize, name)):
        array = arrays[name]
        little = array.dtype.newbyteorder("<")
        if little not in CODES:
            raise TypeError(f"{name}: safetensors written here do not hold {array.dtype}")
        ordered[name] = np.asarray(array, little, order="C")
    return ordered


def _header(ordered: Mapping[str, np.ndarray], meta: Mapping[str, object]) -> tuple[str, bytes]:
    complete = {"format_version": FORMAT_VERSION, **meta}
    digest = _digest(ordered, complete)
    text = canonical_json.to_json(complete | {"digest": digest})
    table: dict[str, object] = {"__metadata__": {"format": "pt", "mltool": text}}
    position = 0
    for name, array in ordered.items():
        offsets = [position, position + array.nbytes]
        code = CODES[array.dtype]
        table[name] = {"dtype": code, "shape": list(array.shape), "data_offsets": offsets}
        position += array.nbytes
    header = canonical_json.to_json(table).encode()
    header += b" " * (-len(header) % 8)
    return digest, struct.pack("<Q", len(header)) + header


def _digest(ordered: Mapping[str, np.ndarray], meta: Mapping[str, object]) -> str:
    rest = {key: value for key, value in meta.items() if key != "digest"}
    table = [[name, CODES[array.dtype], array.shape] for name, array in ordered.items()]
    total = hashlib.sha256(canonical_json.to_json([rest, table]).encode())
    for array in ordered.values():
        total.update(_as_bytes(array))
    return total.hexdigest()


def _as_bytes(array: np.ndarray) -> memoryview:
    return array.reshape(-1).view(np.uint8).data


def _read_header(
    path: str | os.PathLike[str], file: BufferedReader
) -> tuple[list[_Entry], Meta, int]:
    size = os.fstat(file.fileno()).st_size
    start = file.read(9)
    if start.startswith(PICKLES) and not is_safetensors(start):
        raise InputError(
            f"{path} is a pickle (.pt, .pth), which could run any program when it is opened; "
            "save its weights as .safetensors"
        )
    if not is_safetensors(start) or _length(start) > size - 8:
        raise _unreadable(path, "it is no safetensors file, or not whole")
    file.seek(8)
    base = 8 + _length(start)
    try:
        table = canonical_json.from_json(file.read(base - 8))
        if not isinstance(table, dict):
            raise ValueError("the header is no object")
        meta = _meta(path, table.pop("__metadata__", {}))
        entries = list(_entries(table, size - base))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unreadable(path, f"its header is wrong ({error})") from error
    return entries, meta, base


def _meta(path: str | os.PathLike[str], metadata: dict[str, str]) -> Meta:
    meta = canonical_json.from_json(metadata.get("mltool", "{}"))
    if not isinstance(meta, dict):
        raise ValueError("its metadata is no object")
    version = meta.get("format_version", FORMAT_VERSION)
    if not isinstance(version, int) or version > FORMAT_VERSION:
        raise InputError(f"{path} was made by a newer mltool (format {version}); update mltool")
    return meta


def _entries(table: dict[str, dict], size: int) -> Iterator[_Entry]:
    """Yield the arrays in file order; their bytes must fill `size` without gaps or overlaps."""
    position = 0
    for name, item in sorted(table.items(), key=lambda pair: pair[1]["data_offsets"]):
        if item["dtype"] not in DTYPES:
            raise ValueError(f"{name} has type {item['dtype']}, which cannot be read")
        dtype, shape = np.dtype(DTYPES[item["dtype"]]), tuple(item["shape"])
        start, stop = item["data_offsets"]
        numbers = (start, stop, *shape)
        if any(type(number) is not int or number < 0 for number in numbers):
            raise ValueError(f"{name} has a shape or offset that is no natural number")
        if start != position or stop - start != math.prod(shape) * dtype.itemsize:
            raise ValueError(f"{name} does not lie where the others end")
        if max(shape, default=0) >= 2**40 or len(shape) > 32:
            raise ValueError(f"{name} has the impossible shape {shape}")
        yield _Entry(name, dtype, shape, start, stop)
        position = stop
    if position != size:
        raise ValueError(f"it holds {size} bytes of arrays but describes {position}")


def _length(start: bytes) -> int:
    return struct.unpack("<Q", start[:8])[0]


def _unreadable(path: str | os.PathLike[str], what: str) -> InputError:
    return InputError(f"cannot read {os.fspath(path)}: {what}; make or copy it again")
