"""The bytes of an embeddings file around its matrix, and the checksums of both.

HDF5 builds the file in memory with the matrix reserved but untouched. What it wrote, the frame,
and the place of the matrix are all that is needed to make the file with plain writes, so a full
disk or a killed process never meets HDF5.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from mltool.errors import InputError
from mltool.files import canonical_json, safe_h5
from mltool.files._arrays import put_attribute
from mltool.files._sparse import SparseFile, reserve

MATRIX, HASHES = "embeddings", "block_sha256"
BLOCK_ROWS = 4096  # rows of the matrix that share one sha256
ALIGNMENT = 64  # bytes, of every dataset: a mapped matrix is as good as one in memory
UNFINISHED = "unfinished:"  # begins the digests of a file that is not sealed


@dataclass(frozen=True)
class Content:
    """All that an embeddings file holds but the values of its matrix."""

    arrays: Mapping[str, np.ndarray]  # further datasets [N]; `columns/x` lies in a group
    attributes: Mapping[str, str | int]
    shape: tuple[int, int]  # of the matrix
    dtype: np.dtype  # of the matrix, little-endian

    @property
    def nbytes(self) -> int:
        """Bytes of the matrix."""
        return self.shape[0] * self.shape[1] * self.dtype.itemsize

    def summary(self) -> dict[str, object]:
        """What can be compared and shown: settings as they are, arrays by their checksums."""
        sums = {
            name: hashlib.sha256(array.view(np.uint8).data).hexdigest()[:8]
            for name, array in self.arrays.items()
        }
        steps = self.arrays["history"]
        last = canonical_json.from_json(steps[-1]) if len(steps) else {}
        matrix = {"rows": self.shape[0], "dim": self.shape[1], "dtype": self.dtype.name}
        return {**matrix, **self.attributes, **sums, "history": last}

    def sha256(self) -> bytes:
        """Of attributes and datasets, by name; not of how a version of HDF5 lays them out."""
        table = [[name, self.arrays[name].dtype.str] for name in sorted(self.arrays)]
        start = [dict(self.attributes), table, list(self.shape), self.dtype.str]
        total = hashlib.sha256(canonical_json.to_json(start).encode())
        for name in sorted(self.arrays):
            total.update(self.arrays[name].view(np.uint8).data)
        return total.digest()


@dataclass(frozen=True)
class Frame:
    """The file without its matrix. `holes` are the (start, stop) of what `seal` fills in."""

    head: bytes  # before the matrix
    tail: bytes  # after it
    nbytes: int  # of the matrix
    holes: dict[str, tuple[int, int]]
    content_sha256: bytes

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return len(self.head) + self.nbytes + len(self.tail)

    def seal(self, hashes: np.ndarray) -> tuple[str, bytes]:
        """The digest of the file and its head, given the `sha256_of_blocks` of its matrix."""
        head = bytearray(self.head)
        digest = _digest(self.content_sha256, hashes)
        for name, filling in ((HASHES, hashes.tobytes()), ("digest", digest.encode())):
            start, stop = self.holes[name]
            head[start:stop] = filling
        start, stop = self.holes["frame_sha256"]
        head[start:stop] = _frame_sha256(bytes(head), self.tail, start).encode()
        return digest, bytes(head)

    def unseal(self, head: bytes) -> bytes:
        """A head that may be sealed, with its holes as they are before that."""
        result = bytearray(head)
        for start, stop in self.holes.values():
            result[start:stop] = self.head[start:stop]
        return bytes(result)


def build(content: Content) -> Frame:
    """Let HDF5 lay out a file for `content`."""
    content_sha256 = content.sha256()
    # made from a hash over all that the file holds, so that the file holds each of them once
    marks = {name: _mark(name, content_sha256) for name in ("digest", "frame_sha256")}
    memory = SparseFile()
    aligned = {"alignment_threshold": 1, "alignment_interval": ALIGNMENT}
    with h5py.File(memory, "w", libver="earliest", **aligned) as file:
        for name, value in (*content.attributes.items(), *marks.items()):
            put_attribute(file, name, value)
        for name, array in content.arrays.items():
            file.create_dataset(name, data=array.view(_stored_type(array)))
        blocks = -(-content.shape[0] // BLOCK_ROWS)
        hashes = file.create_dataset(HASHES, data=np.zeros((blocks, 32), np.uint8))
        first_hash = hashes.id.get_offset() or 0
        start = reserve(file, MATRIX, content.shape, content.dtype)
    start = memory.size if start is None else start
    head = memory.part(0, start)
    places = {name: head.index(mark.encode()) for name, mark in marks.items()}
    holes = {name: (place, place + 64) for name, place in places.items()}
    holes[HASHES] = (first_hash, first_hash + 32 * blocks)
    tail = memory.part(start + content.nbytes, memory.size)
    return Frame(head, tail, content.nbytes, holes, content_sha256)


def check_layout(file: h5py.File) -> None:
    """Raise InputError unless the file was finished and its checksums fit its rows."""
    matrix = safe_h5.stored(file, MATRIX, ndim=2, kinds="f")
    hashes = safe_h5.stored(file, HASHES, ndim=2, kinds="u")
    if hashes.shape != (-(-len(matrix) // BLOCK_ROWS), 32):
        raise _damaged(file, "its checksums do not fit its rows")


def check_bytes(file: h5py.File, content: Content) -> None:
    """Raise InputError unless every byte of the file fits its checksums."""
    matrix = safe_h5.stored(file, MATRIX, ndim=2, kinds="f")
    head, tail = safe_h5.around(matrix)
    recorded = safe_h5.attribute(file, "frame_sha256", "")
    place = head.find(recorded.encode())
    if not recorded or _frame_sha256(head, tail, place) != recorded:
        raise _damaged(file, "its header, names or labels are damaged")
    hashes = safe_h5.dataset(file, HASHES, ndim=2, kinds="u")
    wrong = np.flatnonzero((sha256_of_blocks(_blocks(matrix)) != hashes).any(1))
    if len(wrong):
        first, last = wrong[0] * BLOCK_ROWS, min((wrong[0] + 1) * BLOCK_ROWS, len(matrix)) - 1
        raise _damaged(file, f"rows {first} to {last} are damaged")
    if _digest(content.sha256(), hashes) != safe_h5.attribute(file, "digest", ""):
        raise _damaged(file, "its content does not fit its digest")


def sha256_of_blocks(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """sha256 of each block of `BLOCK_ROWS` rows (the last may be shorter), uint8 [B, 32]."""
    digests = [hashlib.sha256(block.view(np.uint8).data).digest() for block in blocks]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _digest(content_sha256: bytes, hashes: np.ndarray) -> str:
    return hashlib.sha256(content_sha256 + hashes.tobytes()).hexdigest()


def _frame_sha256(head: bytes, tail: bytes, place: int) -> str:
    """Over head and tail but for the 64 bytes at `place`, where the result itself is stored."""
    total = hashlib.sha256(head[:place])
    total.update(head[place + 64 :])
    total.update(tail)
    return total.hexdigest()


def _blocks(matrix: h5py.Dataset) -> Iterator[np.ndarray]:
    for start in range(0, len(matrix), BLOCK_ROWS):
        yield safe_h5.rows(matrix, start, start + BLOCK_ROWS)


def _mark(name: str, content_sha256: bytes) -> str:
    return (UNFINISHED + hashlib.sha256(name.encode() + content_sha256).hexdigest())[:64]


def _stored_type(array: np.ndarray) -> np.dtype:
    return h5py.string_dtype("utf-8", array.itemsize) if array.dtype.kind == "S" else array.dtype


def _damaged(file: h5py.File, what: str) -> InputError:
    return InputError(f"{file.filename}: {what}; make or copy it again")
