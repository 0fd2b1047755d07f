"""Whether a file that mltool wrote is whole and undamaged."""

import os

from mltool.errors import InputError
from mltool.files import embeddings, history, hits, pack, safe_h5, safetensors_file, search_index
from mltool.files.lists import csv_list
from mltool.files.reading import open_input


def check(path: str | os.PathLike[str], *, full: bool) -> str:
    """Check a file and return its kind, which its content decides, not its name.

    Kinds are embeddings, checkpoint, pack, index, hits, image list and text. With `full` every byte
    that has a checksum is checked, else header, sizes and sidecar. Raises InputError for a file
    that is damaged or of no such kind.
    """
    with open_input(path) as file:
        start = file.read(4096)
    if start.startswith(safe_h5.SIGNATURE):
        return _check_h5(path, full)
    if safetensors_file.is_safetensors(start) or start.startswith(safetensors_file.PICKLES):
        safetensors_file.verify(path, full=full)
        return "checkpoint"
    return _check_text(path, start, full)


def _check_h5(path: str | os.PathLike[str], full: bool) -> str:
    with safe_h5.open_file(path) as file:
        kind = safe_h5.read_attribute(file, "format", "")
    if kind == embeddings.FORMAT:
        embeddings.verify(path, full=full)
        return "embeddings"
    if kind == pack.FORMAT:
        pack.verify(os.fspath(path), full=full)
        return "pack"
    if kind == search_index.FORMAT:
        search_index.read(path)  # checks the digest, full or not
        return "index"
    if kind == hits.FORMAT:
        hits.read(path)
        return "hits"
    raise InputError(f"{path} is no file that can be verified (format {kind!r}); make it again")


def _check_text(path: str | os.PathLike[str], start: bytes, full: bool) -> str:
    described = history.sidecar(path).exists()
    if described and history.is_edited(path):
        raise InputError(f"{path} was changed since mltool wrote it; make it again")
    columns = start.split(b"\n")[0].removeprefix(b"\xef\xbb\xbf").strip().split(b",")
    if b"path" in columns:
        if full:
            csv_list.read_csv(os.fspath(path))
        return "image list"
    if described:
        return "text"
    raise InputError(f"{path} is no file that mltool wrote; check its name")
