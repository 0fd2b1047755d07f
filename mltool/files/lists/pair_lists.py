"""Pairs of images that a text file declares to show the same thing."""

import csv
import io
from dataclasses import replace

import numpy as np

from mltool.errors import InputError, escape
from mltool.files.manifest import Manifest
from mltool.files.names import examples, find
from mltool.files.reading import open_input

HEADER = ("anchor", "positive")


def declare(manifest: Manifest, path: str) -> Manifest:
    """Return the list with the pairs of a CSV `anchor,positive`, joined by name, as its only pairs.

    Negatives differ in class from the anchor, so both images of a pair must have one class:
    otherwise the neighbours of the positive could be pushed away. Raises InputError for a pair of
    two classes, an unknown name, an image paired with itself, and a file that is no such CSV.
    """
    names = _read(path)
    rows = find(manifest.names, names.ravel()).reshape(-1, 2)
    unknown = np.unique(names[rows < 0])
    if len(unknown):
        raise InputError(
            f"{escape(path)}: {len(unknown):,} names are not in the image list "
            f"({examples(unknown)}); correct the pairs or choose more images"
        )
    _refuse(names[rows[:, 0] == rows[:, 1]], path, "pair an image with itself; leave them out")
    labels = manifest.labels[rows]
    apart = (labels[:, 0] != labels[:, 1]) | (labels < 0).any(1)
    _refuse(names[apart], path, "are not of one known class; give both images the same label")
    return replace(manifest, pairs=rows)


def _refuse(wrong: np.ndarray, path: str, reason: str) -> None:
    """Raise InputError if there are wrong pairs ['S', W, 2]."""
    if len(wrong):
        shown = f"{examples(wrong[0, :1])} and {examples(wrong[0, 1:])}"
        raise InputError(f"{escape(path)}: {len(wrong):,} pairs, such as {shown}, {reason}")


def _read(path: str) -> np.ndarray:
    """Read the names in the columns `anchor` and `positive`: ['S', P, 2]. Raises InputError."""
    source = escape(path)
    with open_input(path) as file:
        data = file.read()
    pairs: list[tuple[bytes, bytes]] = []
    try:
        reader = csv.reader(io.StringIO(data.decode("utf-8-sig"), newline=""), strict=True)
        header = [cell.strip() for cell in next(reader, [])]
        if any(header.count(key) != 1 for key in HEADER):
            raise InputError(f"{source} has no header anchor,positive; write it as the first line")
        first, second = map(header.index, HEADER)
        for row in filter(None, reader):
            if len(row) != len(header) or "\0" in row[first] + row[second]:
                line = reader.line_num
                raise InputError(f"{source} line {line}: not {len(header)} texts; correct it")
            pairs.append((row[first].encode(), row[second].encode()))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{source} is no UTF-8 CSV ({error}); correct it") from error
    if not pairs:
        raise InputError(f"{source} lists no pairs; it has a header only")
    return np.array(pairs, "S")
