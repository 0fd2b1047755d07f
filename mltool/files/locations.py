"""Where an image's bytes lie: how a manifest says it, and how a text file says it.

In memory: a file's absolute path, `PACK.h5\\0ROW`, or `digits\\0ROW`. In a text: a path, absolute
or relative to the text's folder, or `PACK.h5::NAME`, or `digits::NAME`; by name, so that a pack
may be written again in another order.
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
    """A location for a message."""
    source, _, row = location.partition("\0")
    return escape(f"{source} row {row}" if row else source)


def resolve(texts: Sequence[str], folder: str) -> list[str]:
    """The locations that the texts of a file in `folder` (absolute) stand for.

    Raises InputError when an image is not in the pack that is named.
    """
    locations = [os.path.join(folder, text) for text in texts]
    inside: dict[str, list[int]] = defaultdict(list)
    for row, text in enumerate(texts):
        if INSIDE in text and not os.path.lexists(locations[row]):
            inside[text.partition(INSIDE)[0]].append(row)
    for source, rows in inside.items():
        members = np.array([member_of(texts[row]).encode() for row in rows])
        path = source if source == DIGITS else os.path.join(folder, source)
        found = find(_names_in(path), members)
        if (found < 0).any():
            raise InputError(f"{escape(path)} holds no {examples(members[found < 0])}")
        for row, row_in_pack in zip(rows, found.tolist(), strict=True):
            locations[row] = f"{path}\0{row_in_pack}"
    return locations


def member_of(text: str) -> str:
    """The name of an image inside a pack, for a text that holds `::`."""
    return text.partition(INSIDE)[2]


def to_texts(paths: Iterable[str], folder: str) -> Iterator[str]:
    """The locations as a text file in `folder` says them, relative to it."""

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


def locate(root: str, names: np.ndarray) -> StringArray:
    """The locations of the images `names` ['S', N] of a root: a folder, a pack or `digits`.

    A name that is an absolute path stands for itself. Raises InputError for one not in the pack.
    """
    if root != DIGITS and not os.path.isfile(root):
        prefix = os.fsencode(root) + b"/"
        paths = (name if name.startswith(b"/") else prefix + name for name in names.tolist())
        return StringArray.from_texts(paths)
    found = find(_names_in(root), names)
    if (found < 0).any():
        raise InputError(f"{escape(root)} holds no {examples(names[found < 0])}")
    return StringArray.from_texts(f"{root}\0{row}" for row in found.tolist())


def are_digits(names: np.ndarray) -> bool:
    """Whether all names ['S', N] are those of scikit-learn's digits."""
    start = f"{DIGITS}/".encode()
    if not len(names) or not names[0].startswith(start):
        return False
    return bool((find(_names_in(DIGITS), names) >= 0).all())


def root_of(names: np.ndarray, paths: StringArray) -> str:
    """The folder or pack from which `locate` finds all these images again, "" if there is none."""
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
    """A column `path` for a file in `folder`, if names and root alone do not find the images."""
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
