"""Joining image lists and choosing from them: split, classes, number, labels of another list."""

import logging
import os
import re
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from mltool.components import suggest
from mltool.errors import InputError, UsageError, escape
from mltool.files.labels import join_labels
from mltool.files.manifest import NEUTRAL, Manifest
from mltool.files.names import StringArray, examples, find

logger = logging.getLogger(__name__)

ALL = "all"
SPLIT_PREFIX = "split:"  # of a column, 1 inside and 0 outside, of a split that shares images
ROLES = ("is_query", "is_gallery")
SPLITS_CALLED = {  # for benchmarks whose official splits have names of their own
    "train": (b"background",),
    "test": (b"evaluation", b"query", b"gallery"),
}


def join(manifests: Sequence[Manifest]) -> Manifest:
    """Concatenate lists; equal label texts are one class.

    Equal names with the same file are one image, labelled if one of them is. A column that a list
    lacks is filled with neutral values: weight 1, query and gallery, else empty, NaN or -1. If some
    lists declare pairs, images of the others are in no pair. Raises InputError for equal names of
    different files or classes.
    """
    if len(manifests) == 1:
        return manifests[0]
    labels, label_names = join_labels(manifests)
    roots = {manifest.root for manifest in manifests}
    columns = dict.fromkeys(key for manifest in manifests for key in manifest.columns)
    joined = Manifest(
        names=np.concatenate([manifest.names for manifest in manifests]),
        paths=StringArray.join([manifest.paths for manifest in manifests]),
        labels=labels,
        label_names=label_names,
        columns={key: _join_column(key, manifests) for key in columns},
        root=roots.pop() if len(roots) == 1 else "",
        pairs=_join_pairs(manifests),
    )
    return _merge_duplicates(joined)


def splits(manifest: Manifest) -> list[str]:
    """List the names of the splits, sorted.

    They are the values of the column `split`, and what follows `split:` in the names of columns,
    which is how splits that share images are written. None if the list has no such column.
    """
    names = [split.decode() for split in np.unique(_split_of(manifest)).tolist() if split]
    shared = [key for key in manifest.columns if key.startswith(SPLIT_PREFIX)]
    return sorted([*names, *(key.removeprefix(SPLIT_PREFIX) for key in shared)])


def find_split(manifest: Manifest, split: str) -> np.ndarray:
    """Return the mask [N] of the images of one split; of an unknown one nothing."""
    shared = manifest.columns.get(f"{SPLIT_PREFIX}{split}")
    if shared is not None:
        return shared == 1
    has_name = split in splits(manifest)
    wanted = (split.encode(),) if has_name else SPLITS_CALLED.get(split, ())
    return np.isin(_split_of(manifest), np.array(wanted, "S"))


def select_split(manifest: Manifest, split: str) -> Manifest:
    """Return the images of one split; `all` keeps every image.

    If no image of the split is a query or in the gallery, as in a train split, the columns of these
    roles are dropped. Raises UsageError for an unknown split.
    """
    names = splits(manifest)
    if split == ALL:
        return manifest
    mask = find_split(manifest, split)
    if not mask.any():
        choices = ", ".join([*map(escape, names), ALL]) if names else "none in this list"
        raise UsageError(f"no split {split!r}{suggest(split, names)} (there are: {choices})")
    taken = manifest.take(mask)
    if any(taken.columns[key].any() for key in ROLES if key in taken.columns):
        return taken
    columns = {key: value for key, value in taken.columns.items() if key not in ROLES}
    return replace(taken, columns=columns)


def select_classes(manifest: Manifest, text: str) -> Manifest:
    """Return the images of some classes: a comma list of label texts and ranges `A-B`.

    A range counts classes from 0 in their order, both ends included. Raises UsageError.
    """
    names = manifest.label_names
    number = {name: label for label, name in enumerate(names)}
    labels: set[int] = set()
    for item in text.split(","):
        bounds = re.fullmatch(r"([0-9]+)-([0-9]+)", item)
        if item in number:
            labels.add(number[item])
        elif bounds and int(bounds[1]) <= int(bounds[2]) < len(names):
            labels.update(range(int(bounds[1]), int(bounds[2]) + 1))
        else:
            hint = suggest(item, list(names))
            raise UsageError(
                f"no class {item!r}{escape(hint)} (there are {len(names):,} classes; "
                f"a range counts them from 0 to {len(names) - 1})"
            )
    return manifest.take(np.isin(manifest.labels, list(labels)))


def split_fold(manifest: Manifest, fold: int, folds: int) -> tuple[Manifest, Manifest]:
    """Split the classes into those to learn and those of one fold, which are held out.

    The classes are sorted by their texts and cut into `folds` consecutive groups, as equal as
    possible, the larger ones first. Images without a label are among those to learn. Raises
    InputError for fewer classes than folds.
    """
    count = len(manifest.label_names)
    if count < folds:
        raise InputError(f"{count} classes cannot be cut into {folds} folds; take fewer folds")
    order = sorted(range(count), key=manifest.label_names.__getitem__)
    inside = np.isin(manifest.labels, np.array_split(order, folds)[fold])
    return manifest.take(~inside).compact(), manifest.take(inside).compact()


def limit(manifest: Manifest, count: int) -> Manifest:
    """Return the first `count` images. Raises UsageError for less than one."""
    if count < 1:
        raise UsageError(f"--limit {count} leaves no image; it takes 1 or more")
    return manifest.take(np.arange(min(count, len(manifest))))


def replace_labels(manifest: Manifest, other: Manifest) -> Manifest:
    """Return the images with the labels of another list, joined by name.

    Images that are not in the other list become unlabelled. Raises InputError if the lists share no
    name.
    """
    rows = find(other.names, manifest.names)
    if (rows < 0).all():
        ours, theirs = examples(manifest.names[:1]), examples(other.names[:1])
        raise InputError(f"no image is in the list of labels ({ours} here, {theirs} there)")
    missing = manifest.names[rows < 0]
    if len(missing):
        logger.warning(
            "%d of %d images are not in the list of labels (%s)",
            *(len(missing), len(manifest), examples(missing)),
        )
    labels = np.where(rows < 0, -1, other.labels[rows])
    return replace(manifest, labels=labels, label_names=other.label_names)


def _split_of(manifest: Manifest) -> np.ndarray:
    column = manifest.columns.get("split", np.zeros(len(manifest), "S1"))
    return column if column.dtype.kind == "S" else column.astype("S")


def _join_column(key: str, manifests: Sequence[Manifest]) -> np.ndarray:
    columns = [manifest.columns[key] for manifest in manifests if key in manifest.columns]
    filled = [
        manifest.columns[key]
        if key in manifest.columns
        else _fill_column(key, columns[0].dtype, len(manifest))
        for manifest in manifests
    ]
    if any(column.dtype.kind == "S" for column in filled):
        filled = [column if column.dtype.kind == "S" else column.astype("S") for column in filled]
    return np.concatenate(filled)


def _join_pairs(manifests: Sequence[Manifest]) -> np.ndarray | None:
    starts = np.cumsum([0, *map(len, manifests)])
    pairs = [
        manifest.pairs + start
        for manifest, start in zip(manifests, starts[:-1], strict=True)
        if manifest.pairs is not None
    ]
    without = sum(len(manifest) for manifest in manifests if manifest.pairs is None)
    if pairs and without:
        logger.warning("%d images are of lists without pairs and serve as negatives only", without)
    return np.concatenate(pairs) if pairs else None


def _fill_column(key: str, dtype: np.dtype, count: int) -> np.ndarray:
    neutral: dict[str, bytes | bool | int | float]
    neutral = {"S": b"", "b": key in ROLES, "i": -1, "u": 0, "f": np.nan}
    return np.full(count, NEUTRAL.get(key, neutral[dtype.kind]), dtype)


def _merge_duplicates(manifest: Manifest) -> Manifest:
    _, index, inverse = np.unique(manifest.names, return_index=True, return_inverse=True)
    first = index[inverse]
    repeated = np.flatnonzero(first != np.arange(len(first)))
    labels = manifest.labels.copy()
    clashes: list[int] = []
    for row in repeated.tolist():
        original = int(first[row])
        if labels[original] < 0:
            labels[original] = labels[row]
        same_class = labels[row] in (-1, labels[original])
        if not (same_class and _same_file(manifest.paths[row], manifest.paths[original])):
            clashes.append(row)
    if clashes:
        names = manifest.names[clashes]
        texts = (*map(escape, manifest.label_names), "no class")
        row, original = clashes[0], int(first[clashes[0]])
        sides = [f"{escape(manifest.paths[r])} ({texts[labels[r]]})" for r in (original, row)]
        raise InputError(
            f"{len(clashes):,} names stand for different files or classes in the joined lists "
            f"({examples(names)}; {sides[0]} and {sides[1]}); give the lists different names"
        )
    kept = np.ones(len(manifest), bool)
    kept[repeated] = False
    pairs = manifest.pairs
    if pairs is not None and len(repeated):
        pairs = np.unique(first[pairs], axis=0)  # one that two lists declare counts once
    return replace(manifest, labels=labels, pairs=pairs).take(kept)


def _same_file(one: str, other: str) -> bool:
    if "\0" in one + other:
        return one == other
    return one == other or os.path.realpath(one) == os.path.realpath(other)
