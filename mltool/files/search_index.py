"""A search index in one HDF5 file: the bytes of faiss, and the names and labels of its rows.

Layout: `/faiss` uint8 [bytes], `/names` [N] UTF-8, `/labels` [N] int64 into `/label_names`,
`/history`, and attributes. The bytes are streamed in and out and never held twice. faiss trusts
what it reads, so the digest over everything is checked before it sees a byte; it tells damage,
not bad intent: an index from a stranger is to be trusted like a program.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import h5py
import numpy as np

from mltool.errors import InputError
from mltool.files import atomic, canonical_json, safe_h5
from mltool.files._arrays import fixed, narrow, put_attribute
from mltool.files._sparse import SparseFile
from mltool.files.history import History, from_h5, to_rows

FORMAT = "mltool-index"
FORMAT_VERSION = 1
BYTES = "faiss"
PIECE = 2**24  # bytes hashed at a time

Emit = Callable[[Callable[[bytes], object]], None]  # calls its argument with the bytes in order


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """What is known of an index beside its bytes; row i of faiss is `names[i]`."""

    names: np.ndarray  # [N] 'S', UTF-8, unique
    labels: np.ndarray  # [N] int64, -1 = unknown
    dim: int
    metric: str  # of the vectors: cosine (which are normalised), euclidean, dot
    factory: str  # faiss's description of its kind
    label_names: tuple[str, ...] = ()
    space: str = ""  # digest of the model that made the vectors, "" = unknown
    preprocess: str = ""
    trained_on: int = 0  # vectors
    recall: float = 0.0  # of the exact 10 nearest rows, the part found
    recall_queries: int = 0  # rows of the index that this was measured with
    history: History = ()
    data: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))  # faiss's bytes
    digest: str = ""  # filled by `read`

    def __len__(self) -> int:
        return len(self.names)


def is_index(path: str | os.PathLike[str]) -> bool:
    """Whether `path` is a file that says it is an index. Raises InputError if it is damaged."""
    if not os.path.isfile(path) or not safe_h5.is_hdf5(path):
        return False
    with safe_h5.open_file(path) as file:
        return safe_h5.attribute(file, "format", "") == FORMAT


def write(path: str | os.PathLike[str], index: SearchIndex, emit: Emit) -> str:
    """Write an index, whole or not at all, and return its digest.

    `emit` is called twice, first to measure. Raises ResourceError.
    """
    measure = _Measure()
    emit(measure.take)
    arrays, attributes = _arrays(index), _attributes(index)
    digest = _digest(arrays, attributes, measure.total.hexdigest())
    head, tail = _frame(arrays, attributes | {"digest": digest}, measure.size)
    atomic.check_writable(path, len(head) + measure.size + len(tail))
    with atomic.replacing(path) as file:
        file.write(head)
        emit(file.write)
        file.write(tail)
    return digest


def read(path: str | os.PathLike[str]) -> SearchIndex:
    """Read an index; its bytes, proven undamaged, are a read-only memory map.

    Raises InputError for a file that is missing, damaged, hostile, foreign or newer.
    """
    with safe_h5.open_file(path) as file:
        safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
        found = safe_h5.stored(file, BYTES, ndim=1, kinds="u")
        mapped = safe_h5.mapped(found)
        names = [name for name in ARRAYS if name in REQUIRED or safe_h5.has(file, name)]
        arrays = {name: safe_h5.dataset(file, name, ndim=1, kinds=ARRAYS[name]) for name in names}
        attributes = {name: _attribute(file, name) for name in ATTRIBUTES}
        digest = safe_h5.attribute(file, "digest", "")
        data = safe_h5.rows(found, 0, len(found)) if mapped is None else mapped
        if digest != _digest(arrays, attributes, _sha256(data)):
            raise InputError(f"{path} is damaged: its content does not fit its digest; build again")
        history = from_h5(file)
    texts = tuple(text.decode() for text in arrays.get("label_names", np.empty(0, "S1")).tolist())
    return SearchIndex(
        names=arrays["names"],
        labels=arrays["labels"],
        label_names=texts,
        history=history,
        data=data,
        digest=digest,
        **{key: attributes[key] for key in _attributes_of_record()},  # type: ignore[arg-type]
    )


ARRAYS = {"names": "S", "labels": "i", "label_names": "S", "history": "S"}
REQUIRED = ("names", "labels")
ATTRIBUTES: dict[str, str | int | float] = {
    "format": "",
    "format_version": 0,
    "dim": 0,
    "metric": "",
    "factory": "",
    "space": "",
    "preprocess": "",
    "trained_on": 0,
    "recall": 0.0,
    "recall_queries": 0,
}


class _Measure:
    def __init__(self) -> None:
        self.size, self.total = 0, hashlib.sha256()

    def take(self, piece: bytes) -> None:
        self.size += len(piece)
        self.total.update(piece)


def _attribute(file: h5py.File, name: str) -> str | int | float:
    default = ATTRIBUTES[name]
    if isinstance(default, str):
        return safe_h5.attribute(file, name, default)
    if isinstance(default, int):
        return safe_h5.attribute(file, name, default)
    return safe_h5.attribute(file, name, default)


def _attributes_of_record() -> list[str]:
    return [key for key in ATTRIBUTES if not key.startswith("format")]


def _attributes(index: SearchIndex) -> dict[str, str | int | float]:
    own = {key: getattr(index, key) for key in _attributes_of_record()}
    return {"format": FORMAT, "format_version": FORMAT_VERSION, **own}


def _arrays(index: SearchIndex) -> dict[str, np.ndarray]:
    arrays = {
        "names": narrow(index.names),
        "labels": narrow(index.labels.astype(np.int64)),
        "history": narrow(to_rows(index.history)),
    }
    if index.label_names:
        arrays["label_names"] = narrow(fixed(index.label_names))
    return arrays


def _digest(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int | float], data: str
) -> str:
    """Hex sha256 over all that the file holds, but not over how HDF5 lays it out."""
    table = [[name, arrays[name].dtype.str] for name in sorted(arrays)]
    total = hashlib.sha256(canonical_json.to_json([dict(attributes), table, data]).encode())
    for name in sorted(arrays):
        total.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    return total.hexdigest()


def _sha256(data: np.ndarray) -> str:
    total = hashlib.sha256()
    for start in range(0, len(data), PIECE):
        total.update(np.ascontiguousarray(data[start : start + PIECE]).data)
    return total.hexdigest()


def _frame(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, str | int | float], size: int
) -> tuple[bytes, bytes]:
    """The file before and after faiss's bytes, whose place HDF5 reserves without writing."""
    memory = SparseFile()
    with h5py.File(memory, "w", libver="earliest") as file:
        for name, value in attributes.items():
            if isinstance(value, float):
                file.attrs[name] = value
            else:
                put_attribute(file, name, value)
        for name, array in arrays.items():
            text = h5py.string_dtype("utf-8", array.dtype.itemsize)
            file.create_dataset(name, data=array.view(text) if array.dtype.kind == "S" else array)
        properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        properties.set_layout(h5py.h5d.CONTIGUOUS)
        properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
        properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
        properties.set_obj_track_times(False)
        space, kind = h5py.h5s.create_simple((size,)), h5py.h5t.STD_U8LE
        start = h5py.h5d.create(file.id, BYTES.encode(), kind, space, properties).get_offset()
    return memory.part(0, start), memory.part(start + size, memory.size)
