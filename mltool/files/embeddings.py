"""Embeddings in one HDF5 file: a contiguous matrix that readers map, names, labels, columns.

Layout: `/embeddings` [N, D] float32 or float16, `/names` [N] UTF-8, `/labels` [N] int64 into
`/label_names`, `/columns/*` [N], `/history` (a JSON text a step), `/block_sha256` (one per 4,096
rows), `/parts` [K, 2] where the vectors have parts, and attributes. Any HDF5 program reads it;
equal content gives equal bytes.
"""

import os
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import BinaryIO

import h5py
import numpy as np

from mltool.errors import InputError, NumericError
from mltool.files import _embeddings_layout, atomic, safe_h5, sealed, vector_parts
from mltool.files._arrays import narrow, to_bytes_array, to_column
from mltool.files._embeddings_layout import BLOCK_ROWS, MATRIX, Content
from mltool.files.concatenated_rows import ConcatenatedRows, release
from mltool.files.history import History, from_h5, to_rows
from mltool.files.labels import decode_label_names, number_labels
from mltool.files.names import check_unique, check_utf8, examples
from mltool.files.sealed import Field

FORMAT = "mltool-embeddings"
FORMAT_VERSION = 1
METRICS = ("cosine", "euclidean", "dot")
FIELDS = {
    "names": Field("S"),
    "labels": Field("iu"),
    "label_names": Field("S", required=False),
    "columns/*": Field("Sbiuf"),
    "parts": Field("iu", ndim=2, required=False),
}


@dataclass(frozen=True, eq=False)
class Embeddings:
    """Vectors with names. `Embeddings(names, vectors, labels)` is enough, and lists will do.

    Label texts are numbered and become `label_names`. Raises InputError if lengths, shapes or
    values do not fit.
    """

    names: np.ndarray  # [N] 'S', UTF-8, unique
    vectors: np.ndarray  # [N, D] float32 or float16, perhaps a read-only map of the file
    labels: np.ndarray = None  # type: ignore[assignment]  # [N] int64, -1 = unknown (default)
    label_names: tuple[str, ...] = ()
    columns: dict[str, np.ndarray] = field(default_factory=dict)  # [N] 'S', bool or numbers
    metric: str = "cosine"  # or euclidean, dot
    normalized: bool = False  # rows have unit length
    space: str = ""  # digest of the model (and part) that made them, "" = unknown
    teacher_space: str = ""  # space of the teacher whose vectors these can be compared with
    views: int = 1  # a row holds that many vectors of its image, one after the other
    parts: vector_parts.Bounds = ()  # columns of each learner's slice; () = the vector has none
    preprocess: str = ""  # JSON
    root: str = ""  # absolute folder of the images, "" = unknown; stored relative to the file
    history: History = ()
    digest: str = ""  # filled by `read`

    def __post_init__(self) -> None:
        vectors = (
            self.vectors if isinstance(self.vectors, ConcatenatedRows) else np.asarray(self.vectors)
        )
        if vectors.dtype not in (np.float32, np.float16):
            with np.errstate(over="ignore"):  # too large becomes infinite, which is refused
                vectors = vectors.astype(np.float32)
        labels, label_names = self.labels, tuple(self.label_names)
        if labels is None:
            labels = np.full(len(self.names), -1)
        elif len(labels) and isinstance(labels[0], str | bytes):
            labels, label_names = number_labels(to_bytes_array(labels))
        normal = {
            "names": to_bytes_array(self.names),
            "vectors": vectors,
            "labels": np.asarray(labels, np.int64),
            "label_names": label_names,
            "columns": {key: to_column(column) for key, column in self.columns.items()},
        }
        for key, value in normal.items():
            object.__setattr__(self, key, value)
        self._check()

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> "Embeddings":
        """Return the embeddings at `rows`: integers [M], or a mask [N].

        Consecutive rows are views; of all others the vectors are copied.
        """
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        if not len(rows) or (np.diff(rows) != 1).any():
            return self._take(rows, self.vectors[rows])
        span = slice(int(rows[0]), int(rows[-1]) + 1)
        if isinstance(self.vectors, ConcatenatedRows):
            return self._take(span, self.vectors.view(span))
        return self._take(span, self.vectors[span])

    def _take(self, rows: np.ndarray | slice, vectors: np.ndarray) -> "Embeddings":
        return replace(
            self,
            names=self.names[rows],
            vectors=vectors,
            labels=self.labels[rows],
            columns={key: column[rows] for key, column in self.columns.items()},
        )

    def _check(self) -> None:
        count = len(self.names)
        if self.vectors.ndim != 2 or self.vectors.shape[1] == 0:
            shape = " x ".join(map(str, self.vectors.shape))
            raise InputError(f"embeddings have N rows and D > 0 columns, these are {shape}")
        lengths = {"vectors": len(self.vectors), "labels": len(self.labels)}
        lengths |= {f"values of column {key}": len(of) for key, of in self.columns.items()}
        for key, length in lengths.items():
            if length != count:
                raise InputError(f"{count} names do not fit {length} {key}; give one per name")
        highest = len(self.label_names) - 1 if self.label_names else np.iinfo(np.int64).max
        if count and not -1 <= self.labels.min() <= self.labels.max() <= highest:
            raise InputError(f"labels must lie between -1 (unknown) and {highest}")
        if self.views < 1 or self.vectors.shape[1] % self.views:
            raise InputError(f"{self.vectors.shape[1]} columns do not hold {self.views} views each")
        vector_parts.check_bounds(self.parts, self.vectors.shape[1])
        if self.metric not in METRICS:
            raise InputError(f"no metric {self.metric!r}; it is one of {', '.join(METRICS)}")


def read(path: str | os.PathLike[str], *, load: bool = False) -> Embeddings:
    """Read an embeddings file; the vectors are a read-only memory map unless `load`.

    Every value is checked once. float64 and big-endian vectors are converted to float32. Raises
    InputError for a file that is missing, damaged, hostile, foreign or newer, or holds NaN, and
    for one with several views of each image, which only a student can learn from.
    """
    embeddings = map_file(path)
    _check_finite(path, embeddings)
    return replace(embeddings, vectors=np.array(embeddings.vectors)) if load else embeddings


def map_file(path: str | os.PathLike[str]) -> Embeddings:
    """Read a file like `read`, but leave it to the caller to check that vectors are finite."""
    header = read_header(path)
    if header.views > 1:
        raise InputError(
            f"{path} holds {header.views} views of each image, for distill --teacher; embed "
            "without --views for everything else"
        )
    return header


def _check_finite(path: str | os.PathLike[str], embeddings: Embeddings) -> None:
    for start, block in _iterate_blocks(embeddings.vectors, np.arange(len(embeddings))):
        broken = _find_not_finite(embeddings.names[start : start + len(block)], block)
        if broken:
            raise InputError(f"{path}: the vector of {broken} is not finite; embed it again")
        release(embeddings.vectors)


def read_header(path: str | os.PathLike[str]) -> Embeddings:
    """Read a file with any number of views; the values of its vectors are not checked."""
    with safe_h5.open_file(path) as file:
        header = _read(path, file)
    if header.digest.startswith(sealed.UNFINISHED):
        raise InputError(f"{path} is not finished; run the command that writes it with --resume")
    return header


def read_partial_content(path: str | os.PathLike[str]) -> Content:
    """Return what an unfinished file will hold. Raises InputError."""
    with safe_h5.open_file(path) as file:
        return list_content(path, _read(path, file))


def verify(path: str | os.PathLike[str], *, full: bool) -> None:
    """Check that a file is whole; if `full`, also every byte of it. Raises InputError."""
    header = read_header(path)
    if full:
        _check_finite(path, header)
    with safe_h5.open_file(path) as file:
        _embeddings_layout.check_layout(file)
        if full:
            _embeddings_layout.check_bytes(file, list_content(path, header))


def write(
    path: str | os.PathLike[str], embeddings: Embeddings, *, keep: np.ndarray | None = None
) -> str:
    """Write an embeddings file, whole or not at all, and return its digest.

    With `keep` [N] bool, only rows that are true are written. Raises NumericError for a vector that
    is not finite, InputError for a repeated name, ResourceError.
    """
    rows = np.arange(len(embeddings)) if keep is None else np.flatnonzero(keep)
    layout = _embeddings_layout.lay_out(list_content(path, _take_header(embeddings, rows)))
    frame = layout.frame
    atomic.check_writable(path, frame.size)
    with atomic.open_output(path) as file:
        file.seek(len(frame.head))
        hashes = _embeddings_layout.hash_blocks(_write_rows(file, embeddings, rows))
        file.write(frame.tail)
        digest, head = layout.seal(hashes)
        file.seek(0)
        file.write(head)
    return digest


def list_content(path: str | os.PathLike[str], embeddings: Embeddings) -> Content:
    """List what a file at `path` holds of `embeddings`, but the values. Raises InputError."""
    _check_names(embeddings.names, path)
    arrays = {"names": narrow(embeddings.names), "labels": embeddings.labels}
    arrays["history"] = narrow(to_rows(embeddings.history))
    if embeddings.label_names:
        arrays["label_names"] = narrow(to_bytes_array(embeddings.label_names))
    for key, column in sorted(embeddings.columns.items()):
        if "/" in key or key in ("", "."):
            raise InputError(f"{path}: a column cannot be called {key!r}; rename it")
        arrays[f"columns/{key}"] = narrow(column)
    if embeddings.parts:
        arrays["parts"] = vector_parts.to_rows(embeddings.parts)
    folder = os.path.dirname(os.path.realpath(path))
    attributes: dict[str, str | int] = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "metric": embeddings.metric,
        "normalized": int(embeddings.normalized),
        "space": embeddings.space,
        "preprocess": embeddings.preprocess,
        "root": os.path.relpath(embeddings.root, folder) if embeddings.root else "",
    }
    if embeddings.teacher_space:
        attributes["teacher_space"] = embeddings.teacher_space
    if embeddings.views > 1:
        attributes["views"] = embeddings.views
    shape, dtype = embeddings.vectors.shape, embeddings.vectors.dtype
    return Content(arrays, attributes, (shape[0], shape[1]), dtype.newbyteorder("<"))


def _read(path: str | os.PathLike[str], file: h5py.File) -> Embeddings:
    safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
    matrix = safe_h5.open_dataset(file, MATRIX, ndim=2, kinds="f")
    vectors = safe_h5.map_dataset(matrix) if matrix.dtype.itemsize <= 4 else None
    arrays = sealed.read_arrays(file, FIELDS)
    root = safe_h5.read_attribute(file, "root", "")
    folder = os.path.dirname(os.path.realpath(path))
    embeddings = Embeddings(
        names=arrays["names"],
        vectors=safe_h5.read_rows(matrix, 0, len(matrix)) if vectors is None else vectors,
        labels=arrays["labels"],
        label_names=decode_label_names(arrays.get("label_names", np.array([])), os.fspath(path)),
        columns=sealed.select_group(arrays, "columns"),
        metric=safe_h5.read_attribute(file, "metric", "cosine"),
        normalized=safe_h5.read_attribute(file, "normalized", False),
        space=safe_h5.read_attribute(file, "space", ""),
        teacher_space=safe_h5.read_attribute(file, "teacher_space", ""),
        views=safe_h5.read_attribute(file, "views", 1),
        parts=vector_parts.from_rows(arrays["parts"]) if "parts" in arrays else (),
        preprocess=safe_h5.read_attribute(file, "preprocess", ""),
        root=os.path.normpath(os.path.join(folder, root)) if root else "",
        history=from_h5(file),
        digest=safe_h5.read_attribute(file, "digest", ""),
    )
    _check_names(embeddings.names, path)
    return embeddings


def _check_names(names: np.ndarray, path: str | os.PathLike[str]) -> None:
    if not (names[1:] > names[:-1]).all():  # a list in order needs no sorting to be checked
        check_unique(names, os.fspath(path))
    check_utf8(names, os.fspath(path))


def _take_header(embeddings: Embeddings, rows: np.ndarray) -> Embeddings:
    """Return the embeddings at `rows` with vectors of zeros, which take no memory."""
    width = embeddings.vectors.shape[1]
    zeros = np.broadcast_to(embeddings.vectors.dtype.type(0), (len(rows), width))
    return embeddings._take(rows, zeros)


def _write_rows(file: BinaryIO, embeddings: Embeddings, rows: np.ndarray) -> Iterator[np.ndarray]:
    """Write the vectors at `rows` block by block, and yield every block."""
    for start, block in _iterate_blocks(embeddings.vectors, rows):
        broken = _find_not_finite(embeddings.names[rows[start : start + len(block)]], block)
        if broken:
            raise NumericError(f"the vector of {broken} is not finite; nothing was written")
        file.write(block.data)
        yield block


def _iterate_blocks(vectors: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Yield (first position, vectors [BLOCK_ROWS, D] at `rows`, contiguous, little-endian)."""
    little = vectors.dtype.newbyteorder("<")
    whole = len(rows) == len(vectors)  # then a slice does, and nothing is copied
    for start in range(0, len(rows), BLOCK_ROWS):
        stop = start + BLOCK_ROWS
        block = vectors[start:stop] if whole else vectors[rows[start:stop]]
        yield start, np.ascontiguousarray(block, little)


def _find_not_finite(names: np.ndarray, block: np.ndarray) -> str:
    """Return for a message the first names whose vectors are not finite, "" if all are."""
    finite = np.isfinite(block)
    return "" if finite.all() else examples(names[~finite.all(1)])
