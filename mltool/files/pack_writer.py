"""Writing a pack: read, check and perhaps shrink every image, in order, with bounded memory."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, Literal

import numpy as np
from PIL import Image

from mltool.errors import InputError
from mltool.files import atomic, crop_boxes, images
from mltool.files.history import History, to_rows
from mltool.files.locations import describe
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.files.pack import FORMAT, FORMAT_VERSION, digest_content, lay_out
from mltool.files.sealed import Attribute

AHEAD = 16  # images that each worker may be ahead of the one that is written


@dataclass(frozen=True)
class PackSummary:
    """Digest and counts of a pack that was written."""

    digest: str
    images: int
    bytes: int
    skipped: tuple[str, ...]  # a message for each image that is left out


def write(
    path: str | os.PathLike[str],
    manifest: Manifest,
    *,
    size: int | None = None,
    quality: int = 95,
    history: History = (),
    on_bad_image: Literal["error", "skip"] = "error",
    workers: int = 1,
) -> PackSummary:
    """Write the images of a list into one file, whole or not at all.

    With `size`, images whose shorter side is larger become JPEGs of that shorter side; all others
    keep their bytes. Every image is decoded, and a bad one ends the work or is left out. Raises
    InputError, also when none is left and for crop boxes, which would not fit smaller images, and
    ResourceError.
    """
    if size is not None and crop_boxes.from_columns(manifest.columns) is not None:
        raise InputError(
            "the list has crop boxes in pixels of the images as they are; pack without --size"
        )
    encoded = _encode_images(manifest.paths, size, quality, workers)
    with atomic.open_output(path) as file:
        file.seek(len(lay_out({}, {}, total=1).head))
        lengths, hashes, skipped = _store_images(file, encoded, len(manifest), on_bad_image)
        if not lengths.any():
            raise InputError(f"none of the {len(manifest):,} images can be read ({skipped[0]})")
        arrays = _list_arrays(manifest, lengths, hashes) | {"history": to_rows(history)}
        attributes, total = _list_attributes(path, manifest), int(lengths.sum())
        frame = lay_out(arrays, attributes, total=total)
        file.write(frame.tail)
        file.seek(0)
        file.write(frame.head)
    digest = digest_content(arrays, attributes)
    return PackSummary(digest, len(arrays["names"]), total, tuple(skipped))


def _store_images(
    file: BinaryIO, encoded: Iterable[bytes | InputError], count: int, on_bad_image: str
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Write images; return length [N] (0 = skipped), sha256 [N, 32] and messages of skipped ones.

    Raises the error of a bad image unless it is skipped.
    """
    lengths, skipped = np.zeros(count, np.int64), []
    hashes = np.zeros((count, 32), np.uint8)
    for row, data in enumerate(encoded):
        if isinstance(data, bytes):
            file.write(data)
            lengths[row] = len(data)
            hashes[row] = np.frombuffer(hashlib.sha256(data).digest(), np.uint8)
        elif on_bad_image == "error":
            raise data
        else:
            skipped.append(str(data))
    return lengths, hashes, skipped


def _list_arrays(
    manifest: Manifest, lengths: np.ndarray, hashes: np.ndarray
) -> dict[str, np.ndarray]:
    packed = manifest.take(lengths > 0)
    arrays = {
        "names": packed.names,
        "labels": packed.labels,
        "offsets": np.concatenate([[0], np.cumsum(lengths[lengths > 0])]),
        "sha256": hashes[lengths > 0],
    }
    arrays |= {f"columns/{key}": column for key, column in packed.columns.items()}
    if packed.label_names:
        arrays["label_names"] = StringArray.from_texts(packed.label_names).to_array()
    return arrays


def _list_attributes(path: str | os.PathLike[str], manifest: Manifest) -> dict[str, Attribute]:
    folder = os.path.dirname(os.path.realpath(path))
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "root": os.path.relpath(manifest.root, folder) if manifest.root else "",
    }


def _encode_images(
    paths: StringArray, size: int | None, quality: int, workers: int
) -> Iterator[bytes | InputError]:
    """Yield for every image in order the bytes to store, or the error of a bad image."""

    def encode(row: int) -> bytes | InputError:
        try:
            return _encode_image(paths[row], size, quality)
        except InputError as error:
            return error

    with ThreadPoolExecutor(workers) as pool:  # Pillow works outside the interpreter's lock
        for start in range(0, len(paths), workers * AHEAD):
            stop = min(start + workers * AHEAD, len(paths))
            yield from pool.map(encode, range(start, stop))


def _encode_image(location: str, size: int | None, quality: int) -> bytes:
    data = images.read_bytes(location)
    # without a size the pixels are only looked at; a JPEG's decoder is quicker at few of them
    pixels = images.decode(data, at_least=size or 1, name=describe(location))
    height, width = pixels.shape[:2]
    if size is None or min(height, width) <= size:
        return data
    scale = size / min(height, width)
    smaller = (max(size, round(width * scale)), max(size, round(height * scale)))
    encoded = io.BytesIO()
    shrunk = Image.fromarray(pixels).resize(smaller, Image.Resampling.LANCZOS)
    shrunk.save(encoded, "JPEG", quality=quality)
    return encoded.getvalue()
