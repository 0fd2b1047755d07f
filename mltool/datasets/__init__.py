"""Benchmarks, and the one function that turns the DATA of a command line into an image list."""

import os
import sys
from collections.abc import Sequence

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
) -> Manifest:
    """The images of one or several DATA, joined; classes without an image are left out.

    A text is an existing path, `PATH:SPLIT`, `BENCHMARK[:ROOT][:SPLIT]` or `-` (paths one a line
    on standard input, below `root` if given). A list with several splits needs one if
    `need_split`, and else is taken whole. `labels` is another such text, joined by name, and
    `pairs` a list of pairs; see `files.selection` for `classes` and `limit`. Raises UsageError for
    a split, class or benchmark that is not there, and InputError.
    """
    standard_inputs = list(texts).count("-")
    if standard_inputs > 1:
        raise UsageError("standard input (-) can be given only once")
    if root is not None and not standard_inputs:
        raise UsageError("--root is for paths on standard input; give - as data")
    parts = [_choose(*_read(text, root), split, need_split) for text in texts]
    if split not in (None, selection.ALL) and not any(map(selection.splits, parts)):
        raise UsageError(f"--split {split}: the data have no splits")
    found = selection.join(parts)
    if labels is not None:
        found = selection.replace_labels(found, open_data([labels]))
    if pairs is not None:
        found = pair_lists.declare(found, pairs)
    if classes is not None:
        found = selection.select_classes(found, classes)
    if limit is not None:
        found = selection.limit(found, limit)
    if not len(found):
        raise InputError(f"no image is left of {', '.join(map(escape, texts))}; choose more")
    return found.compact()


def _choose(
    manifest: Manifest, text: str, own: str | None, split: str | None, need_split: bool
) -> Manifest:
    """The split asked for: by the text itself, else by the option where the list has splits."""
    known = selection.splits(manifest)
    if own is not None:
        return selection.select_split(manifest, own)
    if split is not None:
        return selection.select_split(manifest, split) if known else manifest
    if need_split and len(known) > 1:
        there = ", ".join(map(escape, known))
        raise UsageError(
            f"{escape(text)} has the splits {there}: choose one with --split, or "
            f"{selection.ALL} of them"
        )
    return manifest


def _read(text: str, root: str | None) -> tuple[Manifest, str, str | None]:
    """The whole list behind a text, the text, and the split that it names."""
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
        raise _unknown(text)
    place, own = _place(benchmark, rest) if benchmark != DIGITS else ("", rest)
    return components.load("datasets", benchmark)(place), text, own or None


def _place(benchmark: str, rest: str) -> tuple[str, str]:
    """ROOT and SPLIT of `BENCHMARK:ROOT[:SPLIT]`; a root may hold colons."""
    if not rest:
        raise UsageError(f"{benchmark} needs its folder, as in {benchmark}:/data/{benchmark}")
    head, _, tail = rest.rpartition(":")
    for place, split in ((rest, ""), (head, tail)):
        if os.path.isdir(place):
            return place, split
    raise InputError(f"there is no folder {escape(head or rest)}; give that of {benchmark}")


def _unknown(text: str) -> InputError | UsageError:
    known = components.names("datasets")
    word, colon, _ = text.partition(":")
    hint = components.suggest(word, known)
    if (os.sep in text or "." in text) and not (hint and colon):
        return InputError(f"there is no file or folder {escape(text)}; check the path")
    return UsageError(
        f"{escape(text)} is neither a path nor a benchmark{hint} (there are: {', '.join(known)})"
    )
