"""The bytes of a pack around its images, laid out by HDF5 in memory, and their checksums.

The images come first, at a place that is known before they are: so they are written as they come,
without HDF5, and what lies around them is written when their number and sizes are known.
"""

import hashlib
from collections.abc import Mapping

import h5py
import numpy as np

from mltool.files import canonical_json
from mltool.files._arrays import put_attribute
from mltool.files._sparse import SparseFile

IMAGES = "images"
Attributes = Mapping[str, str | int]


def start_of_images() -> int:
    """Where in the file the first image begins."""
    return len(lay_out({}, {}, total=1)[0])


def lay_out(
    arrays: Mapping[str, np.ndarray], attributes: Attributes, *, total: int
) -> tuple[bytes, bytes]:
    """The bytes before and after `total` bytes of images, with datasets and attributes."""
    digest = content_digest(arrays, attributes)
    mark = hashlib.sha256(digest.encode()).hexdigest()  # held once: here goes the frame's checksum
    memory = SparseFile()
    with h5py.File(memory, "w", libver="earliest") as file:
        start = _reserve(file, total)
        for name, array in arrays.items():
            text = h5py.string_dtype("utf-8", array.itemsize) if array.dtype.kind == "S" else None
            file.create_dataset(name, data=array.view(text or array.dtype))
        for name, value in attributes.items():
            put_attribute(file, name, value)
        put_attribute(file, "digest", digest)
        file.attrs["frame_sha256"] = np.bytes_(mark)
    frame = memory.part(0, start) + memory.part(start + total, memory.size)
    frame = frame.replace(mark.encode(), frame_sha256(frame, mark).encode())
    return frame[:start], frame[start:]


def content_digest(arrays: Mapping[str, np.ndarray], attributes: Attributes) -> str:
    """Hex sha256 of attributes and datasets by name, not of how HDF5 lays them out.

    The images count by their checksums, which are one of the datasets.
    """
    table = [[name, arrays[name].dtype.str, list(arrays[name].shape)] for name in sorted(arrays)]
    total = hashlib.sha256(canonical_json.to_json([dict(attributes), table]).encode())
    for name in sorted(arrays):
        total.update(np.ascontiguousarray(arrays[name]).view(np.uint8).data)
    return total.hexdigest()


def frame_sha256(frame: bytes, stored: str) -> str:
    """Hex sha256 of all but the images and this checksum itself, which is `stored` now."""
    before, _, after = frame.partition(stored.encode())
    return hashlib.sha256(before + after).hexdigest()


def _reserve(file: h5py.File, total: int) -> int:
    """Make the dataset of the images without writing to it; where its bytes begin."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.CONTIGUOUS)
    properties.set_alloc_time(h5py.h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5py.h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5py.h5s.create_simple((total,))
    kind = h5py.h5t.STD_U8LE
    return h5py.h5d.create(file.id, IMAGES.encode(), kind, space, properties).get_offset()
