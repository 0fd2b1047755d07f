"""Image names: many of them in one array, and as text that file systems and terminals allow."""

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from os import fsdecode

import numpy as np

from mltool.errors import InputError, escape

BLOCK = 1 << 16  # rows handled at a time, so that temporaries stay small


@dataclass(frozen=True, eq=False)
class StringArray:
    """Many byte strings in one array. `strings[row]` is a `str` as the file system wants it."""

    data: np.ndarray  # uint8 [total bytes]
    offsets: np.ndarray  # int64 [N + 1]

    @classmethod
    def from_texts(cls, texts: Iterable[str | bytes]) -> "StringArray":
        """Pack texts; a `str` becomes UTF-8, but for the bytes that were no UTF-8 before."""
        encoded, lengths = [b""], [np.zeros(0, np.int64)]
        remaining = iter(texts)
        while block := list(itertools.islice(remaining, BLOCK)):
            raw = [
                text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
                for text in block
            ]
            encoded.append(b"".join(raw))
            lengths.append(np.fromiter(map(len, raw), np.int64, len(raw)))
        return cls(np.frombuffer(b"".join(encoded), np.uint8), _offsets(np.concatenate(lengths)))

    @classmethod
    def join(cls, arrays: Sequence["StringArray"]) -> "StringArray":
        """Concatenate arrays of strings."""
        lengths = [np.diff(array.offsets) for array in arrays]
        return cls(
            np.concatenate([array.data for array in arrays]), _offsets(np.concatenate(lengths))
        )

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} strings")
        return fsdecode(self.data[self.offsets[row] : self.offsets[row + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        for block in row_blocks(len(self)):
            ends = self.offsets[block.start : block.stop + 1]
            data = self.data[ends[0] : ends[-1]].tobytes()
            for start, stop in itertools.pairwise((ends - ends[0]).tolist()):
                yield fsdecode(data[start:stop])

    def take(self, rows: np.ndarray) -> "StringArray":
        """Return the strings at `rows`, integers [M]."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = _offsets(lengths)
        data = np.empty(ends[-1], np.uint8)
        for block in row_blocks(len(rows)):
            first, last = ends[block.start], ends[block.stop]
            shift = np.repeat(starts[block] - ends[block.start : block.stop], lengths[block])
            data[first:last] = self.data[shift + np.arange(first, last)]
        return StringArray(data, ends)

    def to_array(self) -> np.ndarray:
        """Return the strings as one numpy 'S' array [N]. Raises InputError for a NUL byte."""
        if not self.data.all():
            raise InputError("a name holds a NUL byte, which no file name can; rename it")
        lengths = np.diff(self.offsets)
        width = max(int(lengths.max(initial=0)), 1)
        table = np.zeros((len(self), width), np.uint8)
        for block in row_blocks(len(self)):
            inside = np.arange(width) < lengths[block, None]
            table[block][inside] = self.data[self.offsets[block.start] : self.offsets[block.stop]]
        return table.reshape(-1).view(f"S{width}")


def utf8_name(raw: bytes) -> bytes:
    """Return a file name as UTF-8: bytes that are not UTF-8 become `%XX`."""
    try:
        raw.decode()
    except UnicodeDecodeError:
        text = raw.decode(errors="surrogateescape")
        escaped = re.sub("[\udc80-\udcff]", lambda match: f"%{ord(match[0]) - 0xDC00:02X}", text)
        return escaped.encode()
    return raw


def check_unique(names: np.ndarray, source: str) -> None:
    """Raise InputError with examples if one of the names ['S', N] is repeated."""
    ordered = np.sort(names)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice):
        raise InputError(
            f"{source}: {len(twice):,} names stand more than once ({examples(twice)}); "
            "a name is the key of an image and must be unique"
        )


def check_utf8(names: np.ndarray, source: str) -> None:
    """Raise InputError if one of the names ['S', N] is not UTF-8."""
    try:
        b"\n".join(names.tolist()).decode()
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: a name is not UTF-8; rename that image") from error


def find(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return the row of each wanted name ['S', M] in `names` ['S', N]: int64 [M], -1 for none."""
    if not len(names):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(names, kind="stable")
    rank = np.searchsorted(names, wanted, sorter=order)
    rows = order[np.minimum(rank, len(names) - 1)]
    return np.where(names[rows] == wanted, rows, -1)


def examples(names: np.ndarray, count: int = 3) -> str:
    """Return the first few names ['S', N] for a message."""
    shown = ", ".join(escape(name.decode(errors="replace")) for name in names[:count].tolist())
    return f"{shown}, ..." if len(names) > count else shown


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def row_blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
