"""Image lists in memory: names, where the bytes lie, labels and further columns.

A list of a million images is a handful of arrays and no Python object per image: forked loader
workers share the arrays, whereas reference counts would copy a list of strings page by page.
"""

import hashlib
import itertools
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from os import fsdecode

import numpy as np

from mltool.errors import InputError
from mltool.files import crop_boxes
from mltool.files.names import printable

BLOCK = 1 << 16  # rows handled at a time, so that temporaries stay small


@dataclass(frozen=True, eq=False)
class StringArray:
    """Many byte strings in one array. `strings[row]` is a `str` as the file system wants it."""

    data: np.ndarray  # uint8 [total bytes]
    offsets: np.ndarray  # int64 [N + 1]

    @classmethod
    def of(cls, texts: Iterable[str | bytes]) -> "StringArray":
        """Pack texts; a `str` becomes UTF-8, but for the bytes that were no UTF-8 before."""
        parts, lengths = [b""], [np.zeros(0, np.int64)]
        remaining = iter(texts)
        while block := list(itertools.islice(remaining, BLOCK)):
            raw = [
                text if isinstance(text, bytes) else text.encode(errors="surrogateescape")
                for text in block
            ]
            parts.append(b"".join(raw))
            lengths.append(np.fromiter(map(len, raw), np.int64, len(raw)))
        return cls(np.frombuffer(b"".join(parts), np.uint8), _offsets(np.concatenate(lengths)))

    @classmethod
    def join(cls, parts: Sequence["StringArray"]) -> "StringArray":
        """All strings of `parts`, in order."""
        lengths = [np.diff(part.offsets) for part in parts]
        return cls(np.concatenate([part.data for part in parts]), _offsets(np.concatenate(lengths)))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> str:
        if not 0 <= row < len(self):
            raise IndexError(f"row {row} of {len(self)} strings")
        return fsdecode(self.data[self.offsets[row] : self.offsets[row + 1]].tobytes())

    def __iter__(self) -> Iterator[str]:
        for block in _blocks(len(self)):
            ends = self.offsets[block.start : block.stop + 1]
            data = self.data[ends[0] : ends[-1]].tobytes()
            for start, stop in itertools.pairwise((ends - ends[0]).tolist()):
                yield fsdecode(data[start:stop])

    def take(self, rows: np.ndarray) -> "StringArray":
        """The strings at `rows`, integers [M]."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = _offsets(lengths)
        data = np.empty(ends[-1], np.uint8)
        for block in _blocks(len(rows)):
            first, last = ends[block.start], ends[block.stop]
            shift = np.repeat(starts[block] - ends[block.start : block.stop], lengths[block])
            data[first:last] = self.data[shift + np.arange(first, last)]
        return StringArray(data, ends)

    def fixed(self) -> np.ndarray:
        """The strings as one numpy 'S' array [N]. Raises InputError where one holds a NUL byte."""
        if not self.data.all():
            raise InputError("a name holds a NUL byte, which no file name can; rename it")
        lengths = np.diff(self.offsets)
        width = max(int(lengths.max(initial=0)), 1)
        table = np.zeros((len(self), width), np.uint8)
        for block in _blocks(len(self)):
            inside = np.arange(width) < lengths[block, None]
            table[block][inside] = self.data[self.offsets[block.start] : self.offsets[block.stop]]
        return table.reshape(-1).view(f"S{width}")


@dataclass(frozen=True)
class Summary:
    """The counts that every command prints of its data."""

    images: int
    classes: int
    smallest: int  # images of the smallest class
    median: float
    largest: int
    unlabelled: int
    pairs: int = 0  # that the list declares

    def __str__(self) -> str:
        parts = [f"{self.images:,} image{'' if self.images == 1 else 's'}"]
        if self.classes:
            sizes = f"{self.smallest:,} to {self.largest:,} each, median {self.median:g}"
            parts.append(f"{self.classes:,} class{'' if self.classes == 1 else 'es'} ({sizes})")
        if self.unlabelled:
            parts.append(f"{self.unlabelled:,} without label")
        if self.pairs:
            parts.append(f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}")
        return ", ".join(parts)


# Columns that decide what is seen and learned, and the value that decides nothing.
NEUTRAL = {"weight": 1.0, **dict.fromkeys(crop_boxes.COLUMNS, math.nan)}


@dataclass(frozen=True, eq=False)
class Manifest:
    """An image list; `names` are the key of an image everywhere, `paths` say where its bytes lie.

    A path is a file's, or `PACK.h5\\0ROW` for a packed image, or `digits\\0ROW` for one of
    scikit-learn's digits. Rows with label -1 have no known class. `pairs` are rows that show the
    same thing, which not all images of a class need to do; without them any two of a class do.
    """

    names: np.ndarray  # [N] 'S', UTF-8, unique
    paths: StringArray  # [N]
    labels: np.ndarray  # [N] int64 into label_names, -1 = unknown
    label_names: tuple[str, ...]
    columns: dict[str, np.ndarray]  # further columns [N]: 'S', bool, int64 or float64
    root: str  # absolute folder (or pack) that the names are relative to, "" if there is none
    pairs: np.ndarray | None = None  # [P, 2] int64, anchor and positive

    def __post_init__(self) -> None:
        lengths = {len(self.names), len(self.paths), len(self.labels)}
        lengths |= {len(column) for column in self.columns.values()}
        if len(lengths) != 1:
            raise ValueError(f"columns of different lengths: {sorted(lengths)}")

    def __len__(self) -> int:
        return len(self.names)

    def take(self, rows: np.ndarray) -> "Manifest":
        """The images at `rows`: integers [M], or a mask [N]; pairs stay if both images do."""
        rows = np.flatnonzero(rows) if rows.dtype == bool else rows
        columns = {key: column[rows] for key, column in self.columns.items()}
        return replace(
            self,
            names=self.names[rows],
            paths=self.paths.take(rows),
            labels=self.labels[rows],
            columns=columns,
            pairs=self._pairs_among(rows),
        )

    def _pairs_among(self, rows: np.ndarray) -> np.ndarray | None:
        if self.pairs is None:
            return None
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        pairs = place[self.pairs]
        return pairs[(pairs >= 0).all(1)]

    def compact(self) -> "Manifest":
        """Without the classes that no image has; the others keep their order."""
        present = np.unique(self.labels[self.labels >= 0])
        renumbered = np.searchsorted(present, self.labels)
        return replace(
            self,
            labels=np.where(self.labels >= 0, renumbered, -1),
            label_names=tuple(self.label_names[label] for label in present),
        )

    def digest(self) -> str:
        """Hex sha256 over name, NUL, label text, NUL of every image, sorted by name.

        Weights and crop boxes that change something follow, and declared pairs as the ranks of
        their names: they decide what is learned.
        """
        texts = [name.encode() for name in (*self.label_names, "")]  # -1 picks the last
        order = np.argsort(self.names, kind="stable")
        total = hashlib.sha256()
        for block in _blocks(len(self)):
            rows = order[block]
            pairs = zip(self.names[rows].tolist(), self.labels[rows].tolist(), strict=True)
            total.update(b"".join(b"%s\0%s\0" % (name, texts[label]) for name, label in pairs))
        for key, neutral in NEUTRAL.items():
            column = self.columns.get(key, np.array([]))
            if column.dtype.kind in "fiu" and not _all_equal(column, neutral):
                total.update(b"\0%s\0" % key.encode() + column[order].astype("<f8").tobytes())
        if self.pairs is not None:
            ranks = np.argsort(order)[self.pairs]
            ranks = ranks[np.lexsort(ranks.T[::-1])]
            total.update(b"\0pairs\0" + ranks.astype("<i8").tobytes())  # no name is empty
        return total.hexdigest()

    def summary(self) -> Summary:
        """Counts of images, classes and images per class."""
        known = self.labels[self.labels >= 0]
        sizes = np.unique(known, return_counts=True)[1] if len(known) else np.zeros(1, np.int64)
        return Summary(
            images=len(self),
            classes=len(sizes) if len(known) else 0,
            smallest=int(sizes.min()),
            median=float(np.median(sizes)),
            largest=int(sizes.max()),
            unlabelled=len(self) - len(known),
            pairs=0 if self.pairs is None else len(self.pairs),
        )


def _all_equal(column: np.ndarray, value: float) -> bool:
    return bool((np.isnan(column) if math.isnan(value) else column == value).all())


def check_unique(names: np.ndarray, source: str) -> None:
    """Raise InputError with examples where a name stands twice. `names` ['S', N]."""
    ordered = np.sort(names)
    twice = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if len(twice):
        raise InputError(
            f"{source}: {len(twice):,} names stand more than once ({examples(twice)}); "
            "a name is the key of an image and must be unique"
        )


def find(names: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The row of each wanted name ['S', M] in `names` ['S', N]: int64 [M], -1 where it is not."""
    if not len(names):
        return np.full(len(wanted), -1, np.int64)
    order = np.argsort(names, kind="stable")
    place = np.searchsorted(names, wanted, sorter=order)
    rows = order[np.minimum(place, len(names) - 1)]
    return np.where(names[rows] == wanted, rows, -1)


def examples(names: np.ndarray, count: int = 3) -> str:
    """The first few names ['S', N] for a message."""
    shown = ", ".join(printable(name.decode(errors="replace")) for name in names[:count].tolist())
    return f"{shown}, ..." if len(names) > count else shown


def _offsets(lengths: np.ndarray) -> np.ndarray:
    return np.concatenate([np.zeros(1, np.int64), np.cumsum(lengths, dtype=np.int64)])


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, min(start + BLOCK, count))
