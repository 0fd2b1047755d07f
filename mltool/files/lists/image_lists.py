"""Read an image list from a folder, CSV, embeddings file, pack, image file or lines of text."""

import os
from collections.abc import Iterable

import numpy as np

from mltool.errors import InputError, escape
from mltool.files import locations
from mltool.files.lists.csv_list import read_csv
from mltool.files.lists.folder import is_image_name, read_folder
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique, utf8_name


def read(path: str) -> Manifest:
    """Read the image list in a folder, a `.csv`, an `.h5` of mltool, or a single image file.

    Raises InputError when it is missing, damaged, or none of these.
    """
    if os.path.isdir(path):
        return read_folder(path)
    if path.lower().endswith(".csv"):
        return read_csv(path)
    if is_image_name(os.fsencode(path)):
        return read_lines([os.fsencode(path)], source=path)
    from mltool.files import safe_h5  # h5py is for these files only

    if safe_h5.is_hdf5(path):
        return read_h5(path)
    raise InputError(
        f"{escape(path)} is no image list: neither a folder, a .csv, an image nor an .h5 of "
        "mltool; paths one a line can be given on standard input (-)"
    )


def read_lines(lines: Iterable[bytes], *, root: str | None = None, source: str) -> Manifest:
    """Read unlabelled images, one path a line, relative to `root` if any; the line is the name.

    Raises InputError if there is no line, or a line is repeated.
    """
    raw = [line for line in (line.rstrip(b"\r\n") for line in lines) if line]
    if not raw:
        raise InputError(f"{escape(source)} names no images; give one path a line")
    folder = os.path.abspath(root or "")
    names = StringArray.from_texts(map(utf8_name, raw)).to_array()
    check_unique(names, escape(source))
    return Manifest(
        names=names,
        paths=StringArray.from_texts(os.path.join(os.fsencode(folder), line) for line in raw),
        labels=np.full(len(raw), -1),
        label_names=(),
        columns={},
        root=folder,
    )


def read_h5(path: str) -> Manifest:
    """Read the images of a pack, or the images that an embeddings file was made of.

    An embeddings file locates its images by its `root`, by a column `path` relative to the file, or
    by the names of digits; else the images are next to the file. Raises InputError.
    """
    from mltool.files import embeddings, safe_h5
    from mltool.files.pack import FORMAT as PACK
    from mltool.files.pack import read as read_pack

    with safe_h5.open_file(path) as file:
        kind = safe_h5.read_attribute(file, "format", "")
    if kind == PACK:
        return read_pack(path)
    if kind != embeddings.FORMAT:
        raise InputError(f"{escape(path)} holds no image list but {kind or 'foreign data'}")
    header = embeddings.read_header(path)
    columns = dict(header.columns)
    texts = columns.pop("path", None)
    root = header.root or os.path.dirname(os.path.abspath(path))
    if texts is not None:
        written = [os.fsdecode(text) for text in texts.tolist()]
        paths = StringArray.from_texts(
            locations.resolve(written, os.path.dirname(os.path.abspath(path)))
        )
        root = header.root
    elif not header.root and locations.are_digits(header.names):
        paths, root = locations.locate(locations.DIGITS, header.names), ""
    else:
        paths = locations.locate(root, header.names)
    return Manifest(header.names, paths, header.labels, header.label_names, columns, root)
