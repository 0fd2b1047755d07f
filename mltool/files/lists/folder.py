"""A folder of images as an image list: the class is the name of the parent folder."""

import logging
import os
from collections import Counter
from collections.abc import Iterator

import numpy as np

from mltool.errors import InputError, escape
from mltool.files.labels import number_labels
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique, utf8_name
from mltool.files.reading import as_input_error

logger = logging.getLogger(__name__)

SUFFIXES = (
    *(b".jpg", b".jpeg", b".jpe", b".jfif", b".png", b".bmp", b".gif", b".tif", b".tiff"),
    *(b".webp", b".ppm", b".pgm", b".pbm", b".pnm"),
)


def read_folder(root: str) -> Manifest:
    """Read all images below `root`, sorted by name; an image directly in `root` has no class.

    Raises InputError if there is no image.
    """
    root = os.path.abspath(root)
    names, paths = find_images(root)
    classes, folders = _classes(names)
    labels, label_names = number_labels(classes)
    if folders > len(label_names):
        logger.warning(
            "%s: %d folders make %d classes, since folders of one name are one class",
            *(escape(root), folders, len(label_names)),
        )
    return Manifest(names, paths, labels, label_names, {}, root)


def find_images(root: str) -> tuple[np.ndarray, StringArray]:
    """Return names ['S', N] and paths of all images below an absolute path, sorted by name.

    Hidden files, files without the suffix of an image and all that is no file are skipped and
    counted. Symbolic links are followed, each folder once. Raises InputError if there is no image.
    """
    skipped: Counter[str] = Counter()
    raw = sorted(_walk(os.fsencode(root), skipped), key=utf8_name)
    if not raw:
        kinds = " ".join(suffix.decode() for suffix in SUFFIXES)
        raise InputError(f"{escape(root)} holds no images ({kinds}); name another folder")
    names = StringArray.from_texts(map(utf8_name, raw)).to_array()
    check_unique(names, escape(root))
    if skipped:
        counts = ", ".join(f"{count:,} {what}" for what, count in sorted(skipped.items()))
        logger.info("%s: skipped %s", escape(root), counts)
    return names, StringArray.from_texts(os.path.join(os.fsencode(root), name) for name in raw)


def is_image_name(name: bytes) -> bool:
    """Return whether a file name has the suffix of an image."""
    return name.lower().endswith(SUFFIXES)


def _walk(root: bytes, skipped: Counter[str]) -> Iterator[bytes]:
    """Yield the names of the images below `root`, in no order, linked folders after all others.

    A folder that is below `root` and also linked to thus has the name without the link.
    """
    seen: set[tuple[int, int]] = set()
    folders, links = [b""], list[bytes]()
    while folders or links:
        links.sort()
        below = folders.pop() if folders else links.pop(0)
        folder = os.path.join(root, below)
        try:
            status = os.stat(folder)
            entries = list(os.scandir(folder))
        except OSError as error:
            raise as_input_error(escape(os.fsdecode(folder)), error) from error
        if (status.st_dev, status.st_ino) in seen:
            skipped["links to folders read already"] += 1
            continue
        seen.add((status.st_dev, status.st_ino))
        for entry in entries:
            name = os.path.join(below, entry.name)
            if entry.name.startswith(b"."):
                skipped["hidden"] += 1
            elif os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir():
                (links if entry.is_symlink() else folders).append(name)
            elif not is_image_name(name):
                skipped["without an image's suffix"] += 1
            elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
                yield name
            else:
                skipped["that are no files"] += 1


def _classes(names: np.ndarray) -> tuple[np.ndarray, int]:
    """Return the name of the parent folder of each image ['S', N], and the number of folders."""
    parents = [name.rpartition(b"/")[0] for name in names.tolist()]
    texts = StringArray.from_texts(parent.rpartition(b"/")[2] for parent in parents).to_array()
    return texts, len(set(parents) - {b""})
