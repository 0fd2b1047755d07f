"""Packs: one HDF5 file of encoded images, for file systems that hate many small files.

Layout: `/images` uint8 [total bytes], contiguous, `/offsets` int64 [N + 1] into it, `/names` [N]
UTF-8, `/labels` [N] int64 into `/label_names`, `/columns/*` [N], `/sha256` uint8 [N, 32] of each
image, and attributes. One read of the file gives an image; any HDF5 program finds it too.
"""

import hashlib
import os
import weakref
from collections.abc import Callable

import h5py
import numpy as np

from mltool.errors import InputError, escape
from mltool.files import safe_h5
from mltool.files._pack_layout import IMAGES, content_digest, frame_sha256
from mltool.files._raw import read_all
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique, examples

FORMAT = "mltool-pack"
FORMAT_VERSION = 1
REMEDY = "pack the images or copy the file again"

Path = str | os.PathLike[str]
ReadRow = Callable[[int], bytes]


def read(path: Path) -> Manifest:
    """The image list of a pack. Raises InputError when it is damaged, foreign or newer."""
    path = os.path.abspath(path)
    with safe_h5.open_file(path) as file:
        arrays = _arrays(file)
    names, labels = arrays["names"], arrays["labels"]
    label_names = tuple(text.decode() for text in arrays.get("label_names", names[:0]).tolist())
    columns = {
        key.removeprefix("columns/"): column
        for key, column in arrays.items()
        if key.startswith("columns/")
    }
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(label_names):
        raise _damaged(path, "its labels have no names")
    paths = StringArray.from_texts(f"{path}\0{row}" for row in range(len(names)))
    return Manifest(names, paths, labels, label_names, columns, path)


def read_names(path: Path) -> np.ndarray:
    """The names ['S', N] in a pack, in its order. Raises InputError."""
    with safe_h5.open_file(path) as file:
        return _arrays(file)["names"]


def open_bytes(path: Path) -> ReadRow:
    """A function from row to encoded image, which forked processes may use at the same time.

    It keeps to the file as it is now, even if another takes its name. Raises InputError, and so
    does the function.
    """
    with safe_h5.open_file(path) as file:
        images, offsets = _images(file)
        start = images.id.get_offset() or 0
        descriptor = os.dup(file.id.get_vfd_handle())

    def read_row(row: int) -> bytes:
        if not 0 <= row < len(offsets) - 1:
            raise InputError(
                f"{escape(os.fspath(path))} has no image {row}, only {len(offsets) - 1:,}"
            )
        first, last = offsets[row : row + 2].tolist()
        try:
            data = read_all(descriptor, start + first, last - first)
        except OSError as error:
            raise _damaged(path, f"image {row} cannot be read ({error.strerror})") from error
        if len(data) < last - first:
            raise _damaged(path, f"it ends before image {row} does")
        return data

    weakref.finalize(read_row, os.close, descriptor)
    return read_row


def verify(path: Path, *, full: bool) -> None:
    """Check that a pack is whole; if `full`, also every byte of it. Raises InputError."""
    read(path)
    with safe_h5.open_file(path) as file:
        arrays = _arrays(file)
        attributes: dict[str, str | int] = {
            "format": FORMAT,
            "format_version": safe_h5.attribute(file, "format_version", 1),
            "root": safe_h5.attribute(file, "root", ""),
        }
        if content_digest(arrays, attributes) != safe_h5.attribute(file, "digest", ""):
            raise _damaged(path, "its names, labels or checksums do not fit its digest")
        if full:
            _check_bytes(path, file, arrays)


def _check_bytes(path: Path, file: h5py.File, arrays: dict[str, np.ndarray]) -> None:
    images, _ = _images(file)
    before, after = safe_h5.around(images)
    recorded = safe_h5.attribute(file, "frame_sha256", "")
    if not recorded or frame_sha256(before + after, recorded) != recorded:
        raise _damaged(path, "its header is damaged")
    read_row = open_bytes(path)
    wrong = [
        row
        for row, expected in enumerate(arrays["sha256"])
        if hashlib.sha256(read_row(row)).digest() != expected.tobytes()
    ]
    if wrong:
        names = examples(arrays["names"][wrong])
        raise _damaged(path, f"{len(wrong):,} images are damaged ({names})")


def _images(file: h5py.File) -> tuple[h5py.Dataset, np.ndarray]:
    """The unread images of a checked pack, and where in them each begins and ends [N + 1]."""
    safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
    images = safe_h5.stored(file, IMAGES, ndim=1, kinds="u")
    offsets = safe_h5.dataset(file, "offsets", ndim=1, kinds="i")
    whole = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(images)
    if not whole or (np.diff(offsets) < 0).any() or images.dtype != np.uint8 or images.chunks:
        raise _damaged(file.filename, "its images do not lie where it says")
    return images, offsets


def _arrays(file: h5py.File) -> dict[str, np.ndarray]:
    """All datasets but the images, checked against each other."""
    _, offsets = _images(file)
    arrays = {
        "names": safe_h5.dataset(file, "names", ndim=1, kinds="S"),
        "labels": safe_h5.dataset(file, "labels", ndim=1, kinds="i"),
        "offsets": offsets,
        "sha256": safe_h5.dataset(file, "sha256", ndim=2, kinds="u"),
    }
    for key in safe_h5.children(file, "columns"):
        name = f"columns/{key}"
        arrays[name] = safe_h5.dataset(file, name, ndim=1, kinds="Sbiuf")
    lengths = {key: len(array) - (key == "offsets") for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise _damaged(file.filename, f"it holds different numbers of things ({lengths})")
    for name in ("label_names", "history"):
        if safe_h5.has(file, name):
            arrays[name] = safe_h5.dataset(file, name, ndim=1, kinds="S")
    check_unique(arrays["names"], escape(file.filename))
    try:
        for key in ("names", "label_names"):
            b"\n".join(arrays.get(key, offsets[:0]).tolist()).decode()
    except UnicodeDecodeError as error:
        raise _damaged(file.filename, "a name in it is not UTF-8") from error
    return arrays


def _damaged(path: Path, what: str) -> InputError:
    return InputError(f"{escape(os.fspath(path))}: {what}; {REMEDY}")
