"""Several embeddings files read as one: shards of a run, or of a gallery."""

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
    """List the files that an argument names: a file, a folder of `.h5` files, or a quoted glob.

    Numbers in names count as numbers (`shard-2` before `shard-10`). Raises InputError for none.
    """
    if os.path.isdir(text):
        paths = [str(path) for path in Path(text).glob("*.h5") if not path.name.startswith(".")]
    elif os.path.lexists(text) or not glob.has_magic(text):
        return [text]
    else:
        paths = glob.glob(text, recursive=True)
    if not paths:
        raise InputError(f"{text} names no .h5 file; check the folder or pattern")
    return sorted(paths, key=_natural_key)


def read_many(paths: Sequence[str]) -> Embeddings:
    """Read the rows of all files in the order of `paths`; a single file stays a memory map.

    Files must agree in dimension, metric, parts and space, and share no name. Labels are joined by
    text. Columns that a file lacks are left out with a warning. Raises InputError.
    """
    shards = [embeddings.read(path) for path in paths]
    whole = join(paths, shards)
    return whole if len(shards) == 1 else replace(whole, vectors=np.asarray(whole.vectors))


def open_many(paths: Sequence[str]) -> Embeddings:
    """Open files like `read_many`, but leave the vectors in the files, their values unchecked.

    The vectors are a memory map, or `ConcatenatedRows` of the maps of several files; the caller
    checks for NaN while it works on them, inside `name_broken_file`.
    """
    return join(paths, [embeddings.map_file(path) for path in paths])


@contextmanager
def name_broken_file(texts: Iterable[str | None]) -> Iterator[None]:
    """Name the file that holds a NaN if the block raises NotFiniteError.

    `texts` are arguments that name files, see `expand`. Raises InputError with that name. An index
    is skipped: its vectors were checked when it was built.
    """
    try:
        yield
    except NotFiniteError:
        for path in [path for text in texts if text for path in expand(text)]:
            if not search_index.is_index(path):
                embeddings.read(path)
        raise


def check_match(
    paths: Sequence[str], shards: Sequence[Embeddings], *, of_equal_pixels: bool = False
) -> None:
    """Raise InputError unless all shards agree in dimensions, metric, parts and space.

    With `of_equal_pixels` they must also agree in views and preprocessing.
    """
    for path, shard in zip(paths[1:], shards[1:], strict=True):
        first = shards[0]
        facts: dict[str, tuple[object, object]] = {
            "dimensions": (first.vectors.shape[1], shard.vectors.shape[1]),
            "metric": (first.metric, shard.metric),
            "parts": (first.parts, shard.parts),
            "model (space)": (first.space, shard.space),
        }
        if of_equal_pixels:
            facts["views"] = first.views, shard.views
            facts["preprocess"] = first.preprocess, shard.preprocess
        for what, (one, other) in facts.items():
            if one != other:
                raise InputError(
                    f"{paths[0]} and {path} differ in {what} ({one} and {other}), so they cannot "
                    "be read as one; embed both with the same model and settings"
                )


def join(paths: Sequence[str], shards: Sequence[Embeddings]) -> Embeddings:
    """Concatenate embeddings without copying vectors; `paths` name the shards in messages.

    Raises InputError if shards do not fit, as `read_many` does.
    """
    if not shards:
        raise InputError("no embeddings file was named; name at least one")
    if len(shards) == 1:
        return shards[0]
    check_match(paths, shards)
    names = np.concatenate([shard.names for shard in shards])
    check_unique(names, ", ".join(paths))
    labels, label_names = join_labels(shards, paths)
    return Embeddings(
        names=names,
        vectors=cast(np.ndarray, ConcatenatedRows([shard.vectors for shard in shards])),
        labels=labels,
        label_names=label_names,
        columns=_join_columns(shards),
        metric=shards[0].metric,
        normalized=all(shard.normalized for shard in shards),
        space=shards[0].space,
        teacher_space=value_of_all([shard.teacher_space for shard in shards]),
        parts=shards[0].parts,
        preprocess=value_of_all([shard.preprocess for shard in shards]),
        root=value_of_all([shard.root for shard in shards]),
        history=merge(*(shard.history for shard in shards)),
        digest=canonical_json.digest([shard.digest for shard in shards]),
    )


def _join_columns(shards: Sequence[Embeddings]) -> dict[str, np.ndarray]:
    everywhere = set.intersection(*(set(shard.columns) for shard in shards))
    lacking = sorted(set().union(*(shard.columns for shard in shards)) - everywhere)
    if lacking:
        logger.warning("left out columns that not all files have: %s", ", ".join(lacking))
    kept = [key for key in shards[0].columns if key in everywhere]
    return {key: np.concatenate([shard.columns[key] for shard in shards]) for key in kept}


def value_of_all(values: Sequence[str]) -> str:
    """Return the text on which all shards agree, "" if they do not."""
    return values[0] if len(set(values)) == 1 else ""


def _natural_key(path: str) -> list[tuple[int, str]]:
    """Return a key that sorts digits by value and all else as text."""
    pieces = re.split("([0-9]+)", path)
    return [(int(piece), "") if piece.isdigit() else (-1, piece) for piece in pieces]
