"""The layout of an embeddings file: what its checksums cover, and how the file is sealed.

The matrix is the stream of the file, with a sha256 for each `BLOCK_ROWS` rows. The digest covers
these hashes with names, labels, columns and attributes; `frame_sha256` covers every byte around
the matrix.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import h5py
import numpy as np

from mltool.errors import InputError
from mltool.files import canonical_json, safe_h5, sealed

MATRIX, HASHES = "embeddings", "block_sha256"
BLOCK_ROWS = 4096  # rows of the matrix that share one sha256
CHECKSUMS = ("digest", sealed.CHECKSUM)  # attributes that are known when the matrix is written
ALIGNMENT = 64  # bytes, of every dataset: a mapped matrix is as good as one in memory


@dataclass(frozen=True)
class Content:
    """All that an embeddings file holds but the values of its matrix."""

    arrays: Mapping[str, np.ndarray]  # further datasets [N]; `columns/x` lies in a group
    attributes: Mapping[str, str | int]
    shape: tuple[int, int]  # of the matrix
    dtype: np.dtype  # of the matrix, little-endian

    def summary(self) -> dict[str, object]:
        """Return what can be compared and shown: settings, and the checksums of arrays."""
        sums = {
            name: hashlib.sha256(array.view(np.uint8).data).hexdigest()[:8]
            for name, array in self.arrays.items()
        }
        steps = self.arrays["history"]
        last = canonical_json.from_json(steps[-1]) if len(steps) else {}
        matrix = {"rows": self.shape[0], "dim": self.shape[1], "dtype": self.dtype.name}
        return {**matrix, **self.attributes, **sums, "history": last}

    @property
    def hashes_shape(self) -> tuple[int, int]:
        """Shape of the hashes: one sha256 for each block of rows."""
        return -(-self.shape[0] // BLOCK_ROWS), 32

    def sha256(self) -> bytes:
        """Return the sha256 of attributes and arrays by name, and of the matrix's type."""
        matrix = (list(self.shape), self.dtype.str)
        before = [dict(self.attributes)]
        return sealed.sha256(self.arrays, before=before, after=matrix, shapes=False)


@dataclass(frozen=True)
class Layout:
    """The frame of an embeddings file that is not sealed, with marks for its checksums."""

    frame: sealed.Frame
    content_sha256: bytes
    hash_bytes: int  # of all blocks of rows

    def seal(self, hashes: np.ndarray) -> tuple[str, bytes]:
        """Return the digest of the file and its sealed head.

        `hashes` are the `hash_blocks` of the matrix [B, 32].
        """
        digest = _digest(self.content_sha256, hashes)
        frame = self.frame.overwrite(self.frame.offsets[HASHES], hashes.tobytes())
        frame = frame.replace_mark(self._mark("digest"), digest)
        return digest, frame.seal(self._mark(sealed.CHECKSUM)).head

    def unseal(self, head: bytes) -> bytes:
        """Return a head, sealed or not, with marks instead of checksums and without hashes."""
        result = bytearray(head)
        marks = [self.frame.head.index(self._mark(name).encode()) for name in CHECKSUMS]
        spans = [(start, start + sealed.MARK_BYTES) for start in marks]
        first_hash = self.frame.offsets[HASHES]
        spans.append((first_hash, first_hash + self.hash_bytes))
        for start, stop in spans:
            result[start:stop] = self.frame.head[start:stop]
        return bytes(result)

    def _mark(self, name: str) -> str:
        return sealed.mark(name, self.content_sha256)


def lay_out(content: Content) -> Layout:
    """Lay out a file for `content`, ready to be sealed."""
    content_sha256 = content.sha256()
    marks = {name: sealed.mark(name, content_sha256) for name in CHECKSUMS}
    hashes = np.zeros(content.hashes_shape, np.uint8)
    frame = sealed.lay_out(
        {**content.arrays, HASHES: hashes},
        {**content.attributes, **marks},
        sealed.Stream(MATRIX, content.shape, content.dtype),
        alignment=ALIGNMENT,
    )
    return Layout(frame, content_sha256, hashes.nbytes)


def check_layout(file: h5py.File) -> None:
    """Raise InputError unless the file was finished and its checksums fit its rows."""
    matrix = safe_h5.open_dataset(file, MATRIX, ndim=2, kinds="f")
    hashes = safe_h5.open_dataset(file, HASHES, ndim=2, kinds="u")
    if hashes.shape != (-(-len(matrix) // BLOCK_ROWS), 32):
        raise _as_input_error(file, "its checksums do not fit its rows")


def check_bytes(file: h5py.File, content: Content) -> None:
    """Raise InputError unless every byte of the file fits its checksums."""
    matrix = safe_h5.open_dataset(file, MATRIX, ndim=2, kinds="f")
    if not sealed.is_frame_intact(matrix):
        raise _as_input_error(file, "its header, names or labels are damaged")
    hashes = safe_h5.read_dataset(file, HASHES, ndim=2, kinds="u")
    wrong = np.flatnonzero((hash_blocks(_read_blocks(matrix)) != hashes).any(1))
    if len(wrong):
        first, last = wrong[0] * BLOCK_ROWS, min((wrong[0] + 1) * BLOCK_ROWS, len(matrix)) - 1
        raise _as_input_error(file, f"rows {first} to {last} are damaged")
    if _digest(content.sha256(), hashes) != safe_h5.read_attribute(file, "digest", ""):
        raise _as_input_error(file, "its content does not fit its digest")


def hash_blocks(blocks: Iterable[np.ndarray]) -> np.ndarray:
    """Return the sha256 of each block of `BLOCK_ROWS` rows (the last may be shorter) [B, 32]."""
    digests = [hashlib.sha256(block.view(np.uint8).data).digest() for block in blocks]
    return np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32)


def _digest(content_sha256: bytes, hashes: np.ndarray) -> str:
    return hashlib.sha256(content_sha256 + hashes.tobytes()).hexdigest()


def _read_blocks(matrix: h5py.Dataset) -> Iterator[np.ndarray]:
    for start in range(0, len(matrix), BLOCK_ROWS):
        yield safe_h5.read_rows(matrix, start, start + BLOCK_ROWS)


def _as_input_error(file: h5py.File, problem: str) -> InputError:
    return InputError(f"{file.filename}: {problem}; make or copy it again")
