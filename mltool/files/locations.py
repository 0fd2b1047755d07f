"""Locations of images, in the memory of a manifest and in a text file.

In memory a location is the absolute path of a file, `PACK.h5\\0ROW`, or `digits\\0ROW`. In a text
it is a path, absolute or relative to the folder of the text, `PACK.h5::NAME`, or `digits::NAME`:
with the name, so that a pack may be written again in another order.
"""

import functools
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from mltool.errors import InputError, escape
from mltool.files import digits
from mltool.files.names import StringArray, examples, find

INSIDE = "::"  # between a pack and the name of an image in it
DIGITS = "digits"


def describe(location: str) -> str:
    """Return a location as text for a message."""
    source, _, row = location.partition("\0")
    return escape(f"{source} row {row}" if row else source)


def resolve(texts: Sequence[str], folder: str) -> list[str]:
    """Return the locations that the texts of a file in `folder` (absolute) stand for.

    Raises InputError if an image is not in the pack that its text names.
    """
    locations = [os.path.join(folder, text) for text in texts]
    inside: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        if INSIDE in text and not os.path.lexists(locations[row]):
            inside[text.partition(INSIDE)[0]].append(row)
    for source, rows in inside.items():
        members = np.array([member_of(texts[row]).encode() for row in rows])
        path = source if source == DIGITS else os.path.join(folder, source)
        rows_in_pack = find(_names_in(path), members)
        if (rows_in_pack < 0).any():
            raise InputError(f"{escape(path)} holds no {examples(members[rows_in_pack < 0])}")
        for row, row_in_pack in zip(rows, rows_in_pack.tolist(), strict=True):
            locations[row] = f"{path}\0{row_in_pack}"
    return locations


def member_of(text: str) -> str:
    """Return the name of an image inside a pack, from a text with `::`."""
    return text.partition(INSIDE)[2]


def to_texts(paths: Iterable[str], folder: str) -> Iterator[str]:
    """Yield the text of each location for a file in `folder`, relative to `folder`."""

    @functools.lru_cache(maxsize=1024)
    def relative(path: str) -> str:
        near = os.path.relpath(path, folder)
        if os.path.realpath(os.path.join(folder, near)) == os.path.realpath(path):
            return near
        return os.path.relpath(path, os.path.realpath(folder))  # `..` leaves a link's target

    for location in paths:
        source, _, row = location.partition("\0")
        if not row:
            parent, _, base = source.rpartition("/")
            yield os.path.normpath(os.path.join(relative(parent or "/"), base))
        else:
            name = _names_in(source)[int(row)].decode()
            yield f"{source if source == DIGITS else relative(source)}{INSIDE}{name}"


def join_text(folder: str, text: str) -> str:
    """Return a text of a file in `folder` with an absolute path; nothing is looked up."""
    source, inside, member = text.partition(INSIDE)
    return text if source in ("", DIGITS) else os.path.join(folder, source) + inside + member


def relative_text(folder: str, text: str) -> str:
    """Return a text of `join_text` for a file in `folder`, relative to it."""
    source, inside, member = text.partition(INSIDE)
    return text if source in ("", DIGITS) else os.path.relpath(source, folder) + inside + member


def locate(root: str, names: np.ndarray) -> StringArray:
    """Return the locations of images `names` ['S', N] in a root: a folder, a pack or `digits`.

    A name that is an absolute path is its own location. Raises InputError for a name that is not in
    the pack.
    """
    if root != DIGITS and not os.path.isfile(root):
        prefix = os.fsencode(root) + b"/"
        paths = (name if name.startswith(b"/") else prefix + name for name in names.tolist())
        return StringArray.from_texts(paths)
    rows_in_pack = find(_names_in(root), names)
    if (rows_in_pack < 0).any():
        raise InputError(f"{escape(root)} holds no {examples(names[rows_in_pack < 0])}")
    return StringArray.from_texts(f"{root}\0{row}" for row in rows_in_pack.tolist())


def are_digits(names: np.ndarray) -> bool:
    """Return whether all names ['S', N] are names of scikit-learn's digits."""
    start = f"{DIGITS}/".encode()
    if not len(names) or not names[0].startswith(start):
        return False
    return bool((find(_names_in(DIGITS), names) >= 0).all())


def root_of(names: np.ndarray, paths: StringArray) -> str:
    """Return the folder or pack in which `locate` finds all these images, "" if there is none."""
    source, _, row = paths[0].partition("\0")
    if not row:
        name = os.fsdecode(names[0])
        if not source.endswith(f"/{name}"):
            return ""
        source = source.removesuffix(f"/{name}")
    elif source == DIGITS or (find(_names_in(source), names) < 0).any():
        return ""
    again = locate(source, names)
    same = np.array_equal(again.offsets, paths.offsets) and np.array_equal(again.data, paths.data)
    return os.path.realpath(source) if same else ""


def path_column(names: np.ndarray, paths: StringArray, folder: str) -> dict[str, np.ndarray]:
    """Return a column `path` for a file in `folder`, if names and root do not locate the images."""
    if root_of(names, paths) or are_digits(names):
        return {}
    return {"path": StringArray.from_texts(to_texts(paths, folder)).to_array()}


@functools.lru_cache(maxsize=4)
def _names_in(source: str) -> np.ndarray:
    if source == DIGITS:
        count = len(digits.pixels_and_labels()[1])
        return StringArray.from_texts(digits.name(row) for row in range(count)).to_array()
    from mltool.files.pack import read_names  # h5py is for packs only

    return read_names(source)
