"""Find the folder of an official layout, read its lists, check its counts.

Results on the wrong images are this field's most common silent error (another edition, a copy
that lost files), so a benchmark is read whole or refused.
"""

import os
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from mltool.errors import InputError, escape
from mltool.files.lists.selection import find_split
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique, examples
from mltool.files.reading import open_input

Counts = Mapping[str, tuple[int | None, int]]  # split -> images (None: not known), classes


def find_folder(root: str, folders: Sequence[str], holding: str) -> str:
    """Find the first of root's `folders` ("" is the root) with an entry `holding`.

    Returns its absolute path. Raises InputError naming what is missing.
    """
    for folder in folders:
        path = os.path.abspath(os.path.join(root, folder))
        if os.path.exists(os.path.join(path, holding)):
            return path
    others = ", ".join(folder for folder in folders if folder)
    below = f", nor below it in {others}" if others else ""
    raise InputError(f"{escape(root)}: there is no {holding}{below}; is it the right folder?")


def read_rows(path: str, *, fields: int, skip: int = 0) -> list[list[str]]:
    """Read the lines of an official list, split at white space; the last field may hold spaces.

    Blank lines and the first `skip` ones are left out. Raises InputError for a list that is empty,
    is not UTF-8 or has a line of too few fields.
    """
    with open_input(path) as file:
        data = file.read()
    try:
        lines = data.decode().splitlines()
    except UnicodeDecodeError as error:
        raise InputError(f"{escape(path)} is not UTF-8; copy it again") from error
    rows = []
    for number, line in enumerate(lines[skip:], start=skip + 1):
        row = line.split(maxsplit=fields - 1)
        if row and len(row) < fields:
            raise InputError(f"{escape(path)} line {number}: {len(row)} fields, not {fields}")
        if row:
            rows.append([*row[:-1], row[-1].rstrip()])
    if not rows:
        raise InputError(f"{escape(path)} is empty; copy it again")
    return rows


def parse_number(text: str, path: str) -> int:
    """Return the whole number in a text of the list `path`. Raises InputError for other texts."""
    if not (text.isascii() and text.isdigit()):
        raise InputError(f"{escape(path)}: {escape(text)!r} is no number; copy it again")
    return int(text)


def build_manifest(
    folder: str,
    names: Iterable[str],
    classes: Sequence[int],
    class_names: Mapping[int, str],
    columns: Mapping[str, Sequence[bytes] | np.ndarray],
) -> Manifest:
    """Build the list of the images `names` below `folder`; labels keep the order of class ids.

    Without `class_names` no class is known. Raises InputError where a file is missing or a name
    leads out of the folder.
    """
    table = StringArray.from_texts(names).to_array()
    check_unique(table, escape(folder))
    require_files(folder, table)
    ids = sorted(class_names)
    labels = np.searchsorted(ids, classes) if ids else np.full(len(table), -1)
    return Manifest(
        names=table,
        paths=StringArray.from_texts(os.fsencode(folder) + b"/" + name for name in table.tolist()),
        labels=labels.astype(np.int64),
        label_names=tuple(class_names[number] for number in ids),
        columns={key: np.asarray(column) for key, column in columns.items()},
        root=folder,
    )


def check_agreement(classes: Mapping[str, int], others: Mapping[str, int], path: str) -> None:
    """Raise InputError where the list `path` gives an image another class than lists before."""
    odd = [name for name, number in classes.items() if others.get(name, number) != number]
    if odd:
        raise InputError(
            f"{escape(path)}: {escape(odd[0])} has another class in the other lists; copy them "
            "again"
        )


def check_counts(manifest: Manifest, expected: Counts, benchmark: str, hint: str = "") -> Manifest:
    """Return the list as it is. Raises InputError unless its splits have the official sizes."""
    for split, (images, classes) in expected.items():
        inside = find_split(manifest, split)
        counts = int(inside.sum()), len(np.unique(manifest.labels[inside]))
        if counts != (counts[0] if images is None else images, classes):
            official = "images" if images is None else f"{images:,} images"
            raise InputError(
                f"{escape(manifest.root)}: the {split} split of {benchmark} has {official} "
                f"of {classes:,} classes, but here are {counts[0]:,} of {counts[1]:,}; "
                f"{hint or 'copy it again'}"
            )
    return manifest


def require_files(folder: str, names: np.ndarray) -> None:
    """Raise InputError naming the files that are missing; each folder is listed once."""
    wanted: dict[bytes, set[bytes]] = defaultdict(set)
    for name in names.tolist():
        parent, _, base = name.rpartition(b"/")
        if name.startswith(b"/") or b".." in name.split(b"/"):
            raise InputError(f"{escape(folder)}: {examples(names[names == name])} leads outside")
        wanted[parent].add(base)
    missing: list[bytes] = []
    for parent, bases in wanted.items():
        path = os.path.join(os.fsencode(folder), parent)
        present = set(os.listdir(path)) if os.path.isdir(path) else set()
        missing += [os.path.join(parent, base) for base in bases - present]
    if missing:
        raise InputError(
            f"{escape(folder)}: {len(missing):,} of {len(names):,} images are missing "
            f"({examples(np.array(sorted(missing)))}); copy it again"
        )
