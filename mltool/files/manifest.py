"""Image lists in memory: names, where the bytes lie, labels and further columns.

A list of a million images is a handful of arrays and no Python object per image: forked loader
workers share the arrays, whereas reference counts would copy a list of strings page by page.
"""

import hashlib
import math
from dataclasses import dataclass, replace

import numpy as np

from mltool.files import crop_boxes
from mltool.files.names import StringArray, row_blocks


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
        facts = [f"{self.images:,} image{'' if self.images == 1 else 's'}"]
        if self.classes:
            sizes = f"{self.smallest:,} to {self.largest:,} each, median {self.median:g}"
            facts.append(f"{self.classes:,} class{'' if self.classes == 1 else 'es'} ({sizes})")
        if self.unlabelled:
            facts.append(f"{self.unlabelled:,} without label")
        if self.pairs:
            facts.append(f"{self.pairs:,} pair{'' if self.pairs == 1 else 's'}")
        return ", ".join(facts)


CLUSTER = "cluster"  # the column that chooses the learner of an image in training
WEIGHTS = ("weight",)  # columns that multiply the pairs of an image in training
# Columns that decide what is seen and learned, and the value that decides nothing.
NEUTRAL = {**dict.fromkeys(WEIGHTS, 1.0), **dict.fromkeys(crop_boxes.COLUMNS, math.nan)}


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
        """Return the images at `rows`: integers [M] or a mask [N]; pairs stay if both images do."""
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
        new_row = np.full(len(self), -1)
        new_row[rows] = np.arange(len(rows))
        pairs = new_row[self.pairs]
        return pairs[(pairs >= 0).all(1)]

    def compact(self) -> "Manifest":
        """Return the list without the classes of no image; all others keep their order."""
        present = np.unique(self.labels[self.labels >= 0])
        renumbered = np.searchsorted(present, self.labels)
        return replace(
            self,
            labels=np.where(self.labels >= 0, renumbered, -1),
            label_names=tuple(self.label_names[label] for label in present),
        )

    def digest(self) -> str:
        """Return the hex sha256 over name, NUL, label text, NUL of every image, sorted by name.

        Weights and crop boxes that are not neutral follow, then declared pairs as the ranks of
        their names: all of these decide what is learned.
        """
        texts = [name.encode() for name in (*self.label_names, "")]  # -1 picks the last
        order = np.argsort(self.names, kind="stable")
        total = hashlib.sha256()
        for block in row_blocks(len(self)):
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
        """Count images, classes and images per class."""
        labelled = self.labels[self.labels >= 0]
        sizes = (
            np.unique(labelled, return_counts=True)[1] if len(labelled) else np.zeros(1, np.int64)
        )
        return Summary(
            images=len(self),
            classes=len(sizes) if len(labelled) else 0,
            smallest=int(sizes.min()),
            median=float(np.median(sizes)),
            largest=int(sizes.max()),
            unlabelled=len(self) - len(labelled),
            pairs=0 if self.pairs is None else len(self.pairs),
        )


def _all_equal(column: np.ndarray, value: float) -> bool:
    return bool((np.isnan(column) if math.isnan(value) else column == value).all())
