"""A search index in one HDF5 file: the bytes of faiss, and the names and labels of its rows.

Layout: `/faiss` uint8 [bytes], `/names` [N] UTF-8, `/labels` [N] int64 into `/label_names`,
`/history`, and attributes. The bytes are streamed in and out and never held twice. faiss trusts
what it reads, so the digest over everything is checked before faiss reads a byte. The digest shows
damage, not bad intent: trust an index from a stranger as you would trust a program.
"""

import hashlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np

from mltool.errors import InputError
from mltool.files import atomic, safe_h5, sealed
from mltool.files._arrays import narrow, to_bytes_array
from mltool.files.history import History, from_h5, to_rows
from mltool.files.labels import decode_label_names
from mltool.files.sealed import Attribute, Field, Stream

FORMAT = "mltool-index"
FORMAT_VERSION = 1
BYTES = "faiss"
PIECE = 2**24  # bytes hashed at a time
FIELDS = {
    "names": Field("S"),
    "labels": Field("i"),
    "label_names": Field("S", required=False),
    "history": Field("S", required=False),
}
ATTRIBUTES: dict[str, Attribute] = {
    "dim": 0,
    "metric": "",
    "factory": "",
    "space": "",
    "preprocess": "",
    "trained_on": 0,
    "recall": 0.0,
    "recall_queries": 0,
}

Emit = Callable[[Callable[[bytes], object]], None]  # calls its argument with the bytes in order


@dataclass(frozen=True, eq=False)
class SearchIndex:
    """An index: the bytes of faiss, whose row i is `names[i]`, and how they were made."""

    names: np.ndarray  # [N] 'S', UTF-8, unique
    labels: np.ndarray  # [N] int64, -1 = unknown
    dim: int
    metric: str  # of the vectors: cosine (which are normalised), euclidean, dot
    factory: str  # faiss's description of its kind
    label_names: tuple[str, ...] = ()
    space: str = ""  # digest of the model that made the vectors, "" = unknown
    preprocess: str = ""
    trained_on: int = 0  # number of vectors
    recall: float = 0.0  # of the exact 10 nearest rows, the part found
    recall_queries: int = 0  # rows of the index that this was measured with
    history: History = ()
    data: np.ndarray = field(default_factory=lambda: np.empty(0, np.uint8))  # faiss's bytes
    digest: str = ""  # filled by `read`

    def __len__(self) -> int:
        return len(self.names)


def is_index(path: str | os.PathLike[str]) -> bool:
    """Return whether `path` is a file of an index. Raises InputError if the file is damaged."""
    if not os.path.isfile(path) or not safe_h5.is_hdf5(path):
        return False
    with safe_h5.open_file(path) as file:
        return safe_h5.read_attribute(file, "format", "") == FORMAT


def write(path: str | os.PathLike[str], index: SearchIndex, emit: Emit) -> str:
    """Write an index, whole or not at all, and return its digest.

    `emit` is called twice, first to measure. Raises ResourceError.
    """
    measure = _Measure()
    emit(measure.take)
    arrays = _arrays(index)
    attributes: dict[str, Attribute] = {"format": FORMAT, "format_version": FORMAT_VERSION}
    attributes |= {key: getattr(index, key) for key in ATTRIBUTES}
    digest = _digest(arrays, attributes, measure.total.hexdigest())
    stream = Stream(BYTES, (measure.size,), np.dtype(np.uint8))
    frame = sealed.lay_out(arrays, attributes | {"digest": digest}, stream)
    atomic.check_writable(path, frame.size)
    with atomic.open_output(path) as file:
        file.write(frame.head)
        emit(file.write)
        file.write(frame.tail)
    return digest


def read(path: str | os.PathLike[str]) -> SearchIndex:
    """Read an index; its bytes are a read-only memory map and fit the digest.

    Raises InputError for a file that is missing, damaged, hostile, foreign or newer.
    """
    with safe_h5.open_file(path) as file:
        safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
        stored = safe_h5.open_dataset(file, BYTES, ndim=1, kinds="u")
        mapped = safe_h5.map_dataset(stored)
        data = safe_h5.read_rows(stored, 0, len(stored)) if mapped is None else mapped
        arrays = sealed.read_arrays(file, FIELDS)
        attributes = sealed.read_attributes(file, {"format": "", "format_version": 0, **ATTRIBUTES})
        digest = safe_h5.read_attribute(file, "digest", "")
        if digest != _digest(arrays, attributes, _sha256(data)):
            raise InputError(f"{path} is damaged: its content does not fit its digest; build again")
        history = from_h5(file)
    return SearchIndex(
        names=arrays["names"],
        labels=arrays["labels"],
        label_names=decode_label_names(arrays.get("label_names", np.array([])), os.fspath(path)),
        history=history,
        data=data,
        digest=digest,
        **{key: attributes[key] for key in ATTRIBUTES},  # type: ignore[arg-type]
    )


class _Measure:
    def __init__(self) -> None:
        self.size, self.total = 0, hashlib.sha256()

    def take(self, piece: bytes) -> None:
        self.size += len(piece)
        self.total.update(piece)


def _arrays(index: SearchIndex) -> dict[str, np.ndarray]:
    arrays = {
        "names": narrow(index.names),
        "labels": narrow(index.labels.astype(np.int64)),
        "history": narrow(to_rows(index.history)),
    }
    if index.label_names:
        arrays["label_names"] = narrow(to_bytes_array(index.label_names))
    return arrays


def _digest(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Attribute], data: str
) -> str:
    return sealed.sha256(arrays, before=[dict(attributes)], after=[data], shapes=False).hex()


def _sha256(data: np.ndarray) -> str:
    total = hashlib.sha256()
    for start in range(0, len(data), PIECE):
        total.update(np.ascontiguousarray(data[start : start + PIECE]).data)
    return total.hexdigest()
