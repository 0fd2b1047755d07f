"""Writing an embeddings file row by row for hours: bounded memory, and every kill survived.

`<path>.partial` has the layout and size of the finished file, but no checksums. Behind its end
stands a counter: the number of rows that are safely on disk.
"""

import os
import struct
import time
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from mltool.errors import InputError, NumericError
from mltool.files import _embeddings_layout, _pread, atomic, canonical_json, embeddings
from mltool.files._embeddings_layout import BLOCK_ROWS
from mltool.files.embeddings import Embeddings
from mltool.files.history import History
from mltool.files.names import examples
from mltool.files.vector_parts import Bounds

PARTIAL = ".partial"
COUNTER = struct.Struct("<8sqI")  # mark, rows done, checksum of both
COUNTERS = 2  # written in turn: power lost while one is written leaves the other
MARK = b"mltoolN\n"
COMMIT_SECONDS = 1.0


class EmbeddingsWriter:
    """Writes [N, views D] vectors in order of `names`; use it as a context, end with `finish`.

    With `resume`, `<path>.partial` of the same names, settings and history is continued after
    `rows_done`; else it is replaced. The process should hold `atomic.claim(path)`. The finished
    file has the bytes that `embeddings.write` gives. Raises InputError if the partial is damaged
    or differs, ResourceError if the disk is too small.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        names: np.ndarray,
        dim: int,
        dtype: str = "float32",
        labels: np.ndarray | None = None,
        label_names: tuple[str, ...] = (),
        columns: Mapping[str, np.ndarray] | None = None,
        metric: str = "cosine",
        normalized: bool = False,
        space: str = "",
        teacher_space: str = "",
        views: int = 1,
        parts: Bounds = (),
        preprocess: str = "",
        root: str = "",
        history: History = (),
        resume: bool = False,
    ) -> None:
        self._header = Embeddings(
            names=names,
            vectors=np.broadcast_to(np.zeros(1, dtype), (len(names), dim)),
            labels=labels,  # type: ignore[arg-type]
            label_names=label_names,
            columns=dict(columns or {}),
            metric=metric,
            normalized=normalized,
            space=space,
            teacher_space=teacher_space,
            views=views,
            parts=parts,
            preprocess=preprocess,
            root=root,
            history=history,
        )
        self._path = path
        self._partial = Path(f"{atomic.resolve_target(path)}{PARTIAL}")
        self._content = embeddings.list_content(path, self._header)
        self._layout = _embeddings_layout.lay_out(self._content)
        self._frame = self._layout.frame
        self._row_bytes = dim * self._content.dtype.itemsize
        if resume and self._partial.exists():
            self._file, self.rows_done = self._continue()
        else:
            self._file, self.rows_done = self._begin(), 0
        self._committed, self._commit_time, self._slot = self.rows_done, time.monotonic(), 0
        self._skipped = self._find_skipped()

    def append(self, rows: np.ndarray, *, valid: np.ndarray | None = None) -> None:
        """Write the next vectors [n, D]; those not `valid` [n] count as skipped.

        Raises NumericError naming the first image whose vector is not finite as written.
        """
        names = self._header.names[self.rows_done : self.rows_done + len(rows)]
        if rows.shape != (len(names), self._content.shape[1]):
            raise ValueError(f"{rows.shape} rows after {self.rows_done} of {self._content.shape}")
        with np.errstate(over="ignore"):  # too large for float16 is infinite: refused here
            stored = np.array(rows, self._content.dtype, order="C")
        valid = np.ones(len(rows), bool) if valid is None else valid
        broken = valid & ~np.isfinite(stored).all(1)
        if broken.any():
            raise NumericError(
                f"the {stored.dtype} vector of {examples(names[broken])} is not finite; "
                "try --precision fp32 or --dtype float32"
            )
        stored[~valid] = np.nan  # no written vector holds one, so this marks the row
        start = len(self._frame.head) + self.rows_done * self._row_bytes
        with atomic.report_errors(self._path):
            _pread.write_all(self._file, stored.view(np.uint8).data, start)
        self._skipped[self.rows_done : self.rows_done + len(rows)] = ~valid
        self.rows_done += len(rows)
        if time.monotonic() - self._commit_time >= COMMIT_SECONDS:
            self.commit()

    def skip_mask(self) -> np.ndarray:
        """Return which of the rows written so far, in any run, were skipped: [rows_done] bool."""
        return self._skipped[: self.rows_done].copy()

    def commit(self) -> None:
        """Make sure that a killed process or machine resumes from here."""
        if self.rows_done > self._committed:
            with atomic.report_errors(self._path):
                _pread.sync(self._file)
                self._write_counter()
        self._committed, self._commit_time = self.rows_done, time.monotonic()

    def finish(self) -> str:
        """Put the file under its final name and return its digest."""
        if self.rows_done != len(self._header):
            raise ValueError(f"only {self.rows_done} of {len(self._header)} rows were written")
        self.commit()
        digest = self._copy(~self._skipped) if self._skipped.any() else self._seal()
        self.close()
        return digest

    def close(self) -> None:
        """Save the rows written so far; the next run with `resume` continues after them."""
        if self._file >= 0:
            self.commit()
            os.close(self._file)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _begin(self) -> int:
        """Make the partial, whole or not at all, with its space reserved."""
        discard(self._path)
        frame = self._frame
        atomic.check_writable(self._path, frame.size)
        with atomic.open_output(self._partial) as file:
            _pread.allocate(file.fileno(), frame.size)
            file.write(frame.head)
            file.seek(frame.size - len(frame.tail))
            file.write(frame.tail + _counter(0) * COUNTERS)
        return os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)

    def _continue(self) -> tuple[int, int]:
        """Return the descriptor of the partial and the number of rows in it."""
        frame = self._frame
        with atomic.report_errors(self._partial):
            file = os.open(self._partial, os.O_RDWR | os.O_CLOEXEC)
        head = _pread.read_all(file, 0, len(frame.head))
        tail = _pread.read_all(file, frame.size - len(frame.tail), len(frame.tail))
        behind = _pread.read_all(file, frame.size, COUNTERS * COUNTER.size)
        sealed = not behind and head != frame.head  # killed between sealing and renaming
        rows = len(self._header) if sealed else _rows_done(behind)
        same = (self._layout.unseal(head), tail) == (frame.head, frame.tail)
        if same and 0 <= rows <= len(self._header):
            return file, rows
        os.close(file)
        raise InputError(f"{self._partial} {self._mismatch()}; leave out --resume to start over")

    def _find_skipped(self) -> np.ndarray:
        skipped = np.zeros(len(self._header), bool)
        for start, block in self._blocks(self.rows_done):
            skipped[start : start + len(block)] = np.isnan(block[:, 0])
        return skipped

    def _mismatch(self) -> str:
        try:
            then = embeddings.read_partial_content(self._partial).summary()
        except InputError:
            return "is damaged"
        lines = canonical_json.differences(then, self._content.summary())
        if not lines:
            return "is damaged or from another version"
        return f"was begun with other settings ({'; '.join(lines[:5])})"

    def _seal(self) -> str:
        """Fill in the checksums of the partial and give it its final name."""
        blocks = (block for _, block in self._blocks(self.rows_done))
        digest, head = self._layout.seal(_embeddings_layout.hash_blocks(blocks))
        with atomic.report_errors(self._path):
            _pread.write_all(self._file, head, 0)
            _pread.sync(self._file)
            os.ftruncate(self._file, self._frame.size)
        atomic.publish(self._partial, self._path)
        return digest

    def _copy(self, keep: np.ndarray) -> str:
        """Write the rows to keep into a new file of the right size."""
        whole = replace(self._header, vectors=self._map_matrix())
        digest = embeddings.write(self._path, whole, keep=keep)
        discard(self._path)
        return digest

    def _map_matrix(self) -> np.ndarray:
        """Map the rows in the partial: they need not fit into memory."""
        with os.fdopen(os.dup(self._file), "rb") as file:
            start = len(self._frame.head)
            return np.memmap(file, self._content.dtype, "r", start, self._content.shape)

    def _blocks(self, rows: int) -> Iterator[tuple[int, np.ndarray]]:
        """Yield (first row, vectors [BLOCK_ROWS, D]) of the first `rows` rows in the partial."""
        for start in range(0, rows, BLOCK_ROWS):
            count = min(BLOCK_ROWS, rows - start)
            offset = len(self._frame.head) + start * self._row_bytes
            with atomic.report_errors(self._path):
                data = _pread.read_all(self._file, offset, count * self._row_bytes)
            yield start, np.frombuffer(data, self._content.dtype).reshape(count, -1)

    def _write_counter(self) -> None:
        self._slot = (self._slot + 1) % COUNTERS
        offset = self._frame.size + self._slot * COUNTER.size
        _pread.write_all(self._file, _counter(self.rows_done), offset)


def discard(path: str | os.PathLike[str]) -> None:
    """Remove what an unfinished run left beside `path`. Raises ResourceError."""
    with atomic.report_errors(path):
        Path(f"{atomic.resolve_target(path)}{PARTIAL}").unlink(missing_ok=True)


def _counter(rows: int) -> bytes:
    return COUNTER.pack(MARK, rows, zlib.crc32(struct.pack("<8sq", MARK, rows)))


def _rows_done(behind: bytes) -> int:
    """Return the highest intact counter behind the end of a partial, -1 if there is none."""
    counts = [-1]
    whole = len(behind) // COUNTER.size * COUNTER.size
    for mark, rows, checksum in COUNTER.iter_unpack(behind[:whole]):
        if mark == MARK and checksum == zlib.crc32(struct.pack("<8sq", MARK, rows)):
            counts.append(rows)
    return max(counts)
