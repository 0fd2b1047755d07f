"""Packs: one HDF5 file of encoded images, for file systems that hate many small files.

Layout: `/images` uint8 [total bytes], contiguous, `/offsets` int64 [N + 1] into it, `/names` [N]
UTF-8, `/labels` [N] int64 into `/label_names`, `/columns/*` [N], `/sha256` uint8 [N, 32] of each
image, and attributes. One read of the file gives an image; any HDF5 program finds it too.
"""

import hashlib
import os
import weakref
from collections.abc import Callable, Mapping

import h5py
import numpy as np

from mltool.errors import InputError, escape
from mltool.files import safe_h5, sealed
from mltool.files._pread import read_all
from mltool.files.labels import decode_label_names
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray, check_unique, check_utf8, examples
from mltool.files.sealed import Attribute, Field, Frame, Stream

FORMAT = "mltool-pack"
FORMAT_VERSION = 1
IMAGES = "images"
ATTRIBUTES: dict[str, Attribute] = {"format": FORMAT, "format_version": FORMAT_VERSION, "root": ""}
FIELDS = {
    "names": Field("S"),
    "labels": Field("i"),
    "offsets": Field("i"),
    "sha256": Field("u", ndim=2),
    "columns/*": Field("Sbiuf"),
}
TEXTS = {"label_names": Field("S", required=False), "history": Field("S", required=False)}
REMEDY = "pack the images or copy the file again"

Path = str | os.PathLike[str]
ReadRow = Callable[[int], bytes]


def read(path: Path) -> Manifest:
    """Read the image list of a pack. Raises InputError for a damaged, foreign or newer pack."""
    path = os.path.abspath(path)
    with safe_h5.open_file(path) as file:
        arrays = _read_arrays(file)
    names, labels = arrays["names"], arrays["labels"]
    label_names = decode_label_names(arrays.get("label_names", names[:0]), escape(path))
    if len(labels) and not -1 <= labels.min() <= labels.max() < len(label_names):
        raise _as_input_error(path, "its labels have no names")
    paths = StringArray.from_texts(f"{path}\0{row}" for row in range(len(names)))
    columns = sealed.select_group(arrays, "columns")
    return Manifest(names, paths, labels, label_names, columns, path)


def read_names(path: Path) -> np.ndarray:
    """Read the names ['S', N] in a pack, in its order. Raises InputError."""
    with safe_h5.open_file(path) as file:
        return _read_arrays(file)["names"]


def open_bytes(path: Path) -> ReadRow:
    """Return a function from row to encoded image, which forked processes may share.

    The function reads the file that is opened now, even if another file takes its name later.
    Raises InputError, and so does the function.
    """
    with safe_h5.open_file(path) as file:
        images, offsets = _open_images(file)
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
            raise _as_input_error(path, f"image {row} cannot be read ({error.strerror})") from error
        if len(data) < last - first:
            raise _as_input_error(path, f"it ends before image {row} does")
        return data

    weakref.finalize(read_row, os.close, descriptor)
    return read_row


def lay_out(
    arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Attribute], *, total: int
) -> Frame:
    """Return the bytes around `total` bytes of images, which come first in the file.

    The images thus begin at an offset that is known before their number and sizes are.
    """
    digest = digest_content(arrays, attributes)
    mark = sealed.mark(sealed.CHECKSUM, bytes.fromhex(digest))
    checksums: dict[str, Attribute] = {"digest": digest, sealed.CHECKSUM: np.bytes_(mark)}
    stream = Stream(IMAGES, (total,), np.dtype(np.uint8))
    return sealed.lay_out(arrays, {**attributes, **checksums}, stream, stream_first=True).seal(mark)


def digest_content(arrays: Mapping[str, np.ndarray], attributes: Mapping[str, Attribute]) -> str:
    """Return the hex sha256 of attributes and arrays; the images count by their checksums."""
    return sealed.sha256(arrays, before=[dict(attributes)]).hex()


def verify(path: Path, *, full: bool) -> None:
    """Check that a pack is whole; if `full`, also every byte of it. Raises InputError."""
    read(path)
    with safe_h5.open_file(path) as file:
        arrays = _read_arrays(file)
        attributes = sealed.read_attributes(file, ATTRIBUTES)
        if digest_content(arrays, attributes) != safe_h5.read_attribute(file, "digest", ""):
            raise _as_input_error(path, "its names, labels or checksums do not fit its digest")
        if full:
            _check_bytes(path, file, arrays)


def _check_bytes(path: Path, file: h5py.File, arrays: dict[str, np.ndarray]) -> None:
    images, _ = _open_images(file)
    if not sealed.is_frame_intact(images):
        raise _as_input_error(path, "its header is damaged")
    read_row = open_bytes(path)
    wrong = [
        row
        for row, expected in enumerate(arrays["sha256"])
        if hashlib.sha256(read_row(row)).digest() != expected.tobytes()
    ]
    if wrong:
        names = examples(arrays["names"][wrong])
        raise _as_input_error(path, f"{len(wrong):,} images are damaged ({names})")


def _open_images(file: h5py.File) -> tuple[h5py.Dataset, np.ndarray]:
    """Return the images of a checked pack, unread, and the offsets of each in them [N + 1]."""
    safe_h5.check_format(file, FORMAT, FORMAT_VERSION)
    images = safe_h5.open_dataset(file, IMAGES, ndim=1, kinds="u")
    offsets = safe_h5.read_dataset(file, "offsets", ndim=1, kinds="i")
    whole = len(offsets) > 1 and offsets[0] == 0 and offsets[-1] == len(images)
    if not whole or (np.diff(offsets) < 0).any() or images.dtype != np.uint8 or images.chunks:
        raise _as_input_error(file.filename, "its images do not lie where it says")
    return images, offsets


def _read_arrays(file: h5py.File) -> dict[str, np.ndarray]:
    """Read all datasets but the images, and check them against each other."""
    _open_images(file)  # checks that the images lie where the offsets say
    arrays = sealed.read_arrays(file, FIELDS)
    lengths = {key: len(array) - (key == "offsets") for key, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise _as_input_error(file.filename, f"it holds different numbers of things ({lengths})")
    arrays |= sealed.read_arrays(file, TEXTS)
    check_unique(arrays["names"], escape(file.filename))
    check_utf8(arrays["names"], escape(file.filename))
    return arrays


def _as_input_error(path: Path, what: str) -> InputError:
    return InputError(f"{escape(os.fspath(path))}: {what}; {REMEDY}")
