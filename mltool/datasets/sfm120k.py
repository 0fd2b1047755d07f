"""Radenovic, Tolias, Chum: Fine-tuning CNN Image Retrieval with No Human Annotation (2019)."""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mltool.datasets import _official
from mltool.errors import InputError, escape
from mltool.files import safe_pickle
from mltool.files.labels import number_labels
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique

COUNTS = {"train": (91_642, 181_697), "val": (6_403, 1_691)}  # images, pairs
LISTS, WHITEN = "retrieval-SfM-120k.pkl", "retrieval-SfM-120k-whiten.pkl"
_HINT = "retrieval-SfM-30k is another set; copy the file again"


def sfm120k(root: str) -> Manifest:
    """Read retrieval-SfM-120k: 98,045 images of 3D models, and pairs of them that show the same.

    The layout is `retrieval-SfM-120k.pkl` and images `ims/56/34/12/...123456`, each named by its
    id; root holds these, or has them in `train/retrieval-SfM-120k`. A class is a model, of which
    two images need not show the same. `retrieval-SfM-120k-whiten.pkl` adds the split `whiten`,
    pairs without a class. A name is `SPLIT/ID`: no file promises that splits share no id, and so
    a name is the same whichever files are there.
    """
    nested = os.path.join("train", "retrieval-SfM-120k")
    lists = _official.find_folder(root, ("", nested, "retrieval-SfM-120k"), LISTS)
    folder = _official.find_folder(lists, ("",), "ims")
    path = os.path.join(lists, LISTS)
    content = safe_pickle.read(path)
    splits = [_parse_split(_get_entry(content, key, path), key, path) for key in COUNTS]
    _check_counts(splits, path)
    path = os.path.join(lists, WHITEN)
    if os.path.exists(path):
        splits.append(_parse_split(safe_pickle.read(path), "whiten", path))
    return _join(splits, folder)


@dataclass(frozen=True)
class _Split:
    """One split: what its images are called and which of them belong together."""

    split: str
    ids: list[str]
    classes: list[str]  # "" = unknown
    pairs: np.ndarray  # [P, 2] int64, indices into ids


def _parse_split(content: object, split: str, path: str) -> _Split:
    """Read a split from its dictionary of lists. Raises InputError for a damaged one."""
    ids = _parse_ids(_get_entry(content, "cids", path), path)
    has_classes = split in COUNTS
    clusters = (
        _parse_ids(_get_entry(content, "cluster", path), path) if has_classes else [""] * len(ids)
    )
    anchors, positives = (
        _parse_indices(_get_entry(content, key, path), len(ids), path) for key in ("qidxs", "pidxs")
    )
    if len(ids) != len(clusters) or len(anchors) != len(positives):
        raise _explain_damage(
            path,
            f"the lists of {split} differ in length (cids {len(ids):,}, cluster "
            f"{len(clusters):,}, qidxs {len(anchors):,}, pidxs {len(positives):,})",
        )
    # each split may number its models from 0, and no model is in two
    classes = [f"{split}/{cluster}" if has_classes else "" for cluster in clusters]
    return _Split(split, ids, classes, np.column_stack([anchors, positives]))


def _join(splits: Sequence[_Split], folder: str) -> Manifest:
    ids = [key for each in splits for key in each.ids]
    files = StringArray.from_texts(
        f"ims/{key[-2:]}/{key[-4:-2]}/{key[-6:-4]}/{key}" for key in ids
    ).to_array()
    _official.require_files(folder, files)
    names = StringArray.from_texts(
        f"{each.split}/{key}" for each in splits for key in each.ids
    ).to_array()
    check_unique(names, escape(folder))
    sizes = [len(each.ids) for each in splits]
    starts = np.cumsum([0, *sizes[:-1]])
    texts = StringArray.from_texts(text for each in splits for text in each.classes).to_array()
    labels, label_names = number_labels(texts)
    return Manifest(
        names=names,
        paths=StringArray.from_texts(os.fsencode(folder) + b"/" + name for name in files.tolist()),
        labels=labels,
        label_names=label_names,
        columns={"split": np.repeat(np.array([each.split for each in splits], "S"), sizes)},
        root=folder,
        pairs=np.concatenate(
            [each.pairs + start for each, start in zip(splits, starts, strict=True)]
        ),
    )


def _check_counts(splits: Sequence[_Split], path: str) -> None:
    for each in splits:
        images, pairs = COUNTS[each.split]
        if (len(each.ids), len(each.pairs)) != (images, pairs):
            raise InputError(
                f"{escape(path)}: the {each.split} split of SfM-120k has {images:,} images and "
                f"{pairs:,} pairs, but here are {len(each.ids):,} and {len(each.pairs):,}; {_HINT}"
            )


def _get_entry(content: object, key: str, path: str) -> object:
    if not isinstance(content, dict) or key not in content:
        raise _explain_damage(path, f"there is no {key!r} where it should be")
    return content[key]


def _parse_ids(items: object, path: str) -> list[str]:
    """Return ids, which are texts, or numbers of models. Raises InputError for others."""
    if not isinstance(items, list | tuple):
        raise _explain_damage(path, "ids are no list")
    ids = [item if isinstance(item, str) else str(_parse_whole(item, path)) for item in items]
    if not all(key and key.isascii() and key.isprintable() and "/" not in key for key in ids):
        raise _explain_damage(path, "an id is empty or no file name")
    return ids


def _parse_indices(items: object, count: int, path: str) -> np.ndarray:
    """Return indices into `count` images: int64 [P]. Raises InputError for others."""
    if not isinstance(items, list | tuple):
        raise _explain_damage(path, "indices are no list")
    indices = [_parse_whole(item, path) for item in items]
    wrong = [index for index in indices if not 0 <= index < count]
    if wrong:
        raise _explain_damage(path, f"index {wrong[0]} is outside of {count:,} images")
    return np.array(indices, np.int64)


def _parse_whole(item: object, path: str) -> int:
    """Return a whole number, which may be written as a decimal one. Raises InputError."""
    if not isinstance(item, int | float) or item != item // 1:
        raise _explain_damage(path, f"{escape(str(item))[:40]!r} is no whole number")
    return int(item)


def _explain_damage(path: str, reason: str) -> InputError:
    return InputError(f"{escape(path)}: {reason}; fetch the file again")
