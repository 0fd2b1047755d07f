"""Lists of cached vectors: the rows of embeddings files, whatever became of their images.

The location of a vector is `EMB.h5\\0ROW`, as that of a packed image is `PACK.h5\\0ROW`. No image
is looked for: the folders of images and the column `path` are carried along as texts.
"""

import os
from collections.abc import Sequence

from mltool.errors import InputError, escape
from mltool.files import canonical_json, embeddings, history, locations, safe_h5, shards
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray

PATH = "path"  # the column that locates images, here with absolute paths


def expand(texts: Sequence[str]) -> list[str]:
    """List the files that texts name: files, with a split behind a colon or not, folders, globs.

    Raises InputError where a folder or glob names none.
    """
    return [path for text in texts for path in shards.expand(text)]


def are_vectors(texts: Sequence[str]) -> bool:
    """Return whether texts name embeddings files: one, a folder of shards or a glob each.

    Raises InputError where some do and others name images.
    """
    named = [text for text in texts if _is_vectors(text)]
    if named and len(named) < len(texts):
        images = next(text for text in texts if text not in named)
        raise InputError(
            f"{escape(named[0])} holds vectors, but {escape(images)} does not; name either images "
            "or vectors"
        )
    return bool(named)


def read(path: str) -> Manifest:
    """Read the list of the vectors in one embeddings file. Raises InputError."""
    if os.path.isfile(path) and not safe_h5.is_hdf5(path):
        raise InputError(
            f"{escape(path)} holds no vectors; embed its images first, with `mltool embed`"
        )
    header = embeddings.map_file(path)
    folder = os.path.dirname(os.path.realpath(path))
    columns = dict(header.columns)
    root = header.root
    if PATH in columns:
        texts = (os.fsdecode(text) for text in columns[PATH].tolist())
        absolute = [locations.join_text(folder, text) for text in texts]
        columns[PATH] = StringArray.from_texts(absolute).to_array()
    elif not root and not locations.are_digits(header.names):
        root = folder  # the images are next to the file
    return Manifest(
        names=header.names,
        paths=StringArray.from_texts(f"{os.path.abspath(path)}\0{n}" for n in range(len(header))),
        labels=header.labels,
        label_names=header.label_names,
        columns=columns,
        root=root,
    )


def columns_for(manifest: Manifest, folder: str) -> dict:
    """Return the columns of a list for a file in `folder`, paths relative to it."""
    if PATH not in manifest.columns:
        return manifest.columns
    texts = (os.fsdecode(text) for text in manifest.columns[PATH].tolist())
    relative = [locations.relative_text(os.path.realpath(folder), text) for text in texts]
    return manifest.columns | {PATH: StringArray.from_texts(relative).to_array()}


def list_inputs(option: str, texts: Sequence[str]) -> list[tuple[str, str, str]]:
    """Return (option, text, digest of the vectors' files) of each text, as inputs of a record."""
    inputs = []
    for text in texts:
        digests = [history.digest_of_file(path) for path in _files_of(text)]
        together = digests[0] if len(digests) == 1 else canonical_json.digest(digests)
        inputs.append((option, text, together))
    return inputs


def read_histories(texts: Sequence[str]) -> list[history.History]:
    """Read the histories of all files that texts name."""
    return [history.read(path) for path in list_files(texts)]


def list_files(texts: Sequence[str]) -> list[str]:
    """List the files behind texts, without the splits that they name."""
    return [path for text in texts for path in _files_of(text)]


def split_text(text: str) -> tuple[str, str | None]:
    """Return (file, split) of `FILE` or `FILE:SPLIT`. Raises InputError if there is no file."""
    if os.path.exists(text):
        return text, None
    path, _, split = text.rpartition(":")
    if os.path.exists(path):
        return path, split
    raise InputError(
        f"there is no file {escape(text)}; cached vectors are .h5 files of `mltool embed`"
    )


def _is_vectors(text: str) -> bool:
    try:
        paths = _files_of(text)
    except InputError:  # a folder without .h5 files, a benchmark, standard input
        return False
    return all(
        os.path.isfile(path) and safe_h5.is_hdf5(path) and _read_format(path) == embeddings.FORMAT
        for path in paths
    )


def _read_format(path: str) -> str:
    with safe_h5.open_file(path) as file:
        return safe_h5.read_attribute(file, "format", "")


def _files_of(text: str) -> list[str]:
    return [split_text(path)[0] for path in shards.expand(text)]
