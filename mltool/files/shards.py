"""Several embeddings files read as one: shards of a run, or parts of a gallery."""

import glob
import logging
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import cast

import numpy as np

from mltool.errors import InputError, NotFiniteError
from mltool.files import canonical_json, embeddings, search_index
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings
from mltool.files.history import merge
from mltool.files.labels import join_labels
from mltool.files.names import check_unique

logger = logging.getLogger(__name__)


def expand(text: str) -> list[str]:
    """The files that an argument names: a file, a folder of `.h5` files, or a quoted glob.

    Numbers in names count as numbers (`shard-2` before `shard-10`). Raises InputError for none.
    """
    if os.path.isdir(text):
        found = [str(path) for path in Path(text).glob("*.h5") if not path.name.startswith(".")]
    elif os.path.lexists(text) or not glob.has_magic(text):
        return [text]
    else:
        found = glob.glob(text, recursive=True)
    if not found:
        raise InputError(f"{text} names no .h5 file; check the folder or pattern")
    return sorted(found, key=_natural_key)


def read_many(paths: Sequence[str]) -> Embeddings:
    """The rows of all files in the given order; one file alone stays a memory map.

    Files must agree in dimension, metric and space, and share no name. Labels are joined by text.
    Columns that a file lacks are left out with a warning. Raises InputError.
    """
    parts = [embeddings.read(path) for path in paths]
    found = join(paths, parts)
    return found if len(parts) == 1 else replace(found, vectors=np.asarray(found.vectors))


def open_many(paths: Sequence[str]) -> Embeddings:
    """Like `read_many`, but the vectors stay in the files and their values are not looked at.

    They are a memory map, or the maps of several files behind the reading half of an array's
    interface (see `files.stacked`): whoever looks for NaN should do it while working on them.
    """
    return join(paths, [embeddings.map_file(path) for path in paths])


@contextmanager
def name_broken_file(texts: Iterable[str | None]) -> Iterator[None]:
    """Find the file when vectors of those that the texts name turn out not to be finite.

    Raises InputError with its name. An index among them was checked when it was built.
    """
    try:
        yield
    except NotFiniteError:
        for path in [path for text in texts if text for path in expand(text)]:
            if not search_index.is_index(path):
                embeddings.read(path)
        raise


def join(paths: Sequence[str], parts: Sequence[Embeddings]) -> Embeddings:
    """The rows of all parts in order, vectors not copied; `paths` name the parts in messages.

    Raises InputError where they do not fit, as `read_many` does.
    """
    if not parts:
        raise InputError("no embeddings file was named; name at least one")
    if len(parts) == 1:
        return parts[0]
    for path, part in zip(paths[1:], parts[1:], strict=True):
        _check_match(paths[0], parts[0], path, part)
    names = np.concatenate([part.names for part in parts])
    check_unique(names, ", ".join(paths))
    labels, label_names = join_labels(parts, paths)
    return Embeddings(
        names=names,
        vectors=cast(np.ndarray, ConcatenatedRows([part.vectors for part in parts])),
        labels=labels,
        label_names=label_names,
        columns=_join_columns(parts),
        metric=parts[0].metric,
        normalized=all(part.normalized for part in parts),
        space=parts[0].space,
        teacher_space=_shared_value([part.teacher_space for part in parts]),
        preprocess=_shared_value([part.preprocess for part in parts]),
        root=_shared_value([part.root for part in parts]),
        history=merge(*(part.history for part in parts)),
        digest=canonical_json.digest([part.digest for part in parts]),
    )


def _check_match(first: str, one: Embeddings, second: str, other: Embeddings) -> None:
    facts = {
        "dimensions": (one.vectors.shape[1], other.vectors.shape[1]),
        "metric": (one.metric, other.metric),
        "model (space)": (one.space, other.space),
    }
    for what, (here, there) in facts.items():
        if here != there:
            raise InputError(
                f"{first} and {second} differ in {what} ({here} and {there}), so they cannot be "
                "read as one; embed both with the same model"
            )


def _join_columns(parts: Sequence[Embeddings]) -> dict[str, np.ndarray]:
    everywhere = set.intersection(*(set(part.columns) for part in parts))
    lacking = sorted(set().union(*(part.columns for part in parts)) - everywhere)
    if lacking:
        logger.warning("left out columns that not all files have: %s", ", ".join(lacking))
    kept = [key for key in parts[0].columns if key in everywhere]
    return {key: np.concatenate([part.columns[key] for part in parts]) for key in kept}


def _shared_value(values: Sequence[str]) -> str:
    return values[0] if len(set(values)) == 1 else ""


def _natural_key(path: str) -> list[tuple[int, str]]:
    """A key that sorts digits by value and the rest as text."""
    parts = re.split("([0-9]+)", path)
    return [(int(part), "") if part.isdigit() else (-1, part) for part in parts]
