"""Classes as numbers into a list of label names, and the lists of several sets as one."""

import re
from collections.abc import Sequence
from typing import Protocol

import numpy as np

from mltool.errors import InputError


class Labelled(Protocol):
    """What has labels [N] int64 into label_names, -1 = unknown."""

    @property
    def labels(self) -> np.ndarray: ...
    @property
    def label_names(self) -> tuple[str, ...]: ...


def number_labels(texts: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    """Number label texts ['S', N]: labels int64 [N] and label names; an empty text becomes -1.

    Classes are in text order, or in order of number if all texts are whole numbers.
    """
    unique, labels = np.unique(texts, return_inverse=True)
    names = [name.decode() for name in unique.tolist()]
    if names and not names[0]:
        names, labels = names[1:], labels - 1
    if all(re.fullmatch(r"-?(0|[1-9][0-9]*)", name) for name in names):
        order = sorted(range(len(names)), key=lambda row: int(names[row]))
        rank = np.append(np.argsort(order), -1) if names else np.array([-1])
        names, labels = [names[row] for row in order], rank[labels]
    return labels.astype(np.int64), tuple(names)


def decode_label_names(texts: np.ndarray, source: str) -> tuple[str, ...]:
    """Decode label names ['S', C]. Raises InputError for one that is not UTF-8."""
    try:
        return tuple(text.decode() for text in texts.tolist())
    except UnicodeDecodeError as error:
        raise InputError(f"{source}: a label name is not UTF-8; make the file again") from error


def join_labels(
    sets: Sequence[Labelled], sources: Sequence[str] = ()
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Join the labels of all sets [sum of N] and their label names.

    A set without any label fits all others. Raises InputError if some sets have label names and
    others only numbers; `sources` name the sets in that message.
    """
    labelled = [i for i, each in enumerate(sets) if (each.labels >= 0).any()]
    named = [i for i in labelled if sets[i].label_names]
    if not named:
        return np.concatenate([each.labels for each in sets]), ()
    if len(named) < len(labelled):
        bare = next(i for i in labelled if i not in named)
        mixed = "some of the embeddings have label names, but others"
        if sources:
            mixed = f"{sources[named[0]]} has label names, but {sources[bare]}"
        raise InputError(f"{mixed} only numbers; embed all from lists with labels")
    texts = tuple(dict.fromkeys(text for each in sets for text in each.label_names))
    number = {text: label for label, text in enumerate(texts)}
    # -1 picks the last
    tables = [np.array([*(number[text] for text in each.label_names), -1]) for each in sets]
    joined = [table[each.labels] for table, each in zip(tables, sets, strict=True)]
    return np.concatenate(joined), texts
