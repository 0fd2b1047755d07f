"""Benchmarks, and the one function that turns the DATA of a command line into an image list.

A dataset is one file with one function `f(root) -> Manifest`, called like the benchmark.
"""

import os
import sys
from collections.abc import Iterator, Sequence

from mltool import components
from mltool.errors import InputError, UsageError, escape
from mltool.files.lists import image_lists, pair_lists, selection
from mltool.files.locations import DIGITS
from mltool.files.manifest import Manifest


def open_data(
    texts: Sequence[str],
    *,
    split: str | None = None,
    classes: str | None = None,
    limit: int | None = None,
    labels: str | None = None,
    pairs: str | None = None,
    root: str | None = None,
    need_split: bool = False,
    of_vectors: bool = False,
) -> Manifest:
    """Open one or several DATA as one image list; classes without an image are left out.

    A text is an existing path, `PATH:SPLIT`, `BENCHMARK[:ROOT][:SPLIT]` or `-` (paths one a line
    on standard input, below `root` if given). A list with several splits needs one if
    `need_split`, and else is taken whole. `labels` is another such text, joined by name, and
    `pairs` a list of pairs; see `files.lists.selection` for `classes` and `limit`. With
    `of_vectors` the list is one of cached vectors: texts name embeddings files, folders of them,
    or globs, and no image is looked for.
    Raises UsageError for a split, class or benchmark that does not exist, InputError for files that
    are missing or damaged, and if no image is left.
    """
    standard_inputs = list(texts).count("-")
    if standard_inputs > 1:
        raise UsageError("standard input (-) can be given only once")
    if root is not None and not standard_inputs:
        raise UsageError("--root is for paths on standard input; give - as data")
    lists = _read_vectors(texts) if of_vectors else (_read(text, root) for text in texts)
    manifests = [_choose_split(*each, split, need_split) for each in lists]
    if split not in (None, selection.ALL) and not any(map(selection.splits, manifests)):
        raise UsageError(f"--split {split}: the data have no splits")
    manifest = selection.join(manifests)
    if labels is not None:
        manifest = selection.replace_labels(manifest, open_data([labels]))
    if pairs is not None:
        manifest = pair_lists.declare(manifest, pairs)
    if classes is not None:
        manifest = selection.select_classes(manifest, classes)
    if limit is not None:
        manifest = selection.limit(manifest, limit)
    if not len(manifest):
        what = "vector" if of_vectors else "image"
        raise InputError(f"no {what} is left of {', '.join(map(escape, texts))}; choose more")
    return manifest.compact()


def _choose_split(
    manifest: Manifest, text: str, named: str | None, split: str | None, need_split: bool
) -> Manifest:
    """Choose the split that the text names, else that of the option if the list has splits."""
    splits = selection.splits(manifest)
    if named is not None:
        return selection.select_split(manifest, named)
    if split is not None:
        return selection.select_split(manifest, split) if splits else manifest
    if need_split and len(splits) > 1:
        choices = ", ".join(map(escape, splits))
        raise UsageError(
            f"{escape(text)} has the splits {choices}: choose one with --split, or "
            f"{selection.ALL} of them"
        )
    return manifest


def _read(text: str, root: str | None) -> tuple[Manifest, str, str | None]:
    """Read the whole list behind a text; returns (list, text, the split that it names)."""
    if text == "-":
        lines = sys.stdin.buffer
        return image_lists.read_lines(lines, root=root, source="standard input"), text, None
    if os.path.exists(text):
        return image_lists.read(text), text, None
    path, _, split = text.rpartition(":")
    if os.path.exists(path):
        return image_lists.read(path), path, split
    benchmark, _, rest = text.partition(":")
    if benchmark not in components.names("datasets"):
        raise _explain_unknown(text)
    folder, named = _split_root(benchmark, rest) if benchmark != DIGITS else ("", rest)
    return components.load("datasets", benchmark)(folder), text, named or None


def _read_vectors(texts: Sequence[str]) -> Iterator[tuple[Manifest, str, str | None]]:
    """Yield (list, text, the split that it names) of every file of vectors behind the texts."""
    from mltool.files.lists import vector_lists  # h5py is for these files only

    for text in vector_lists.expand(texts):
        path, split = vector_lists.split_text(text)
        yield vector_lists.read(path), text, split


def _split_root(benchmark: str, rest: str) -> tuple[str, str]:
    """Split `ROOT[:SPLIT]` of a benchmark into both; a root may hold colons."""
    if not rest:
        raise UsageError(f"{benchmark} needs its folder, as in {benchmark}:/data/{benchmark}")
    head, _, tail = rest.rpartition(":")
    for folder, split in ((rest, ""), (head, tail)):
        if os.path.isdir(folder):
            return folder, split
    raise InputError(f"there is no folder {escape(head or rest)}; give that of {benchmark}")


def _explain_unknown(text: str) -> InputError | UsageError:
    names = components.names("datasets")
    word, colon, _ = text.partition(":")
    hint = components.suggest(word, names)
    if (os.sep in text or "." in text) and not (hint and colon):
        return InputError(f"there is no file or folder {escape(text)}; check the path")
    return UsageError(
        f"{escape(text)} is neither a path nor a benchmark{hint} (there are: {', '.join(names)})"
    )
