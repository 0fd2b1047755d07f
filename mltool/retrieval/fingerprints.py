"""What tells that images are the same, or nearly: digests of pixels, and small grey pictures."""

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from PIL import Image

from mltool.errors import InputError, ResourceError
from mltool.exact.blocks import split_rows
from mltool.files import images
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.processors import usable_cores
from mltool.progress import Progress

SIDE = 32  # pixels of a thumbnail
BLOCK = 1024  # images decoded before the next are begun
IMAGE_BYTES = 2 * SIDE * SIDE + 48  # memory of a fingerprint


@dataclass(frozen=True, eq=False)
class Fingerprints:
    """Fingerprints of n images in the order of their list."""

    digests: np.ndarray  # [n] 'S32', hexadecimal, of size and decoded pixels; empty if unreadable
    thumbnails: np.ndarray  # [n, 1024] float16: 32 x 32 grey values less their mean
    reasons: tuple[str, ...]  # why an image is unreadable, one for each of these

    def __len__(self) -> int:
        return len(self.digests)


def read_fingerprints(
    manifest: Manifest, *, label: str, threads: int | None = None
) -> Iterator[Fingerprints]:
    """Decode the images of a list and yield their fingerprints, a block at a time, in order.

    Images are decoded whole, upright and as RGB; crop boxes are not applied. `label` names the
    work in its progress.
    """
    with (
        ThreadPoolExecutor(threads or usable_cores()) as pool,
        Progress(label, len(manifest)) as bar,
    ):
        for rows in split_rows(len(manifest), BLOCK):
            taken = list(pool.map(_take_fingerprint, _locations(manifest.paths, rows)))
            yield Fingerprints(
                digests=np.array([digest for digest, _, _ in taken], "S32"),
                thumbnails=np.stack([thumbnail for _, thumbnail, _ in taken]),
                reasons=tuple(reason for _, _, reason in taken if reason),
            )
            bar.update(rows.stop)


def check_memory(count: int, max_memory: int) -> None:
    """Raise ResourceError unless the fingerprints of so many images fit into memory."""
    if count * IMAGE_BYTES > max_memory:
        raise ResourceError(
            f"the thumbnails of {count:,} images take {count * IMAGE_BYTES / 2**20:,.0f} MiB; "
            "raise --max-memory"
        )


def join(blocks: Iterable[Fingerprints]) -> Fingerprints:
    """Read all blocks and concatenate them; there is at least one."""
    taken = list(blocks)
    return Fingerprints(
        digests=np.concatenate([block.digests for block in taken]),
        thumbnails=np.concatenate([block.thumbnails for block in taken]),
        reasons=tuple(reason for block in taken for reason in block.reasons),
    )


def shrink(pixels: np.ndarray) -> np.ndarray:
    """Return the centred thumbnail [1024] float16 of an image uint8 [H, W, 3].

    Grey values are those of ITU-R 601, averaged over the area of each of 32 x 32 boxes. An image of
    one grey value becomes zeros, which resemble nothing.
    """
    grey = Image.fromarray(pixels).convert("L").resize((SIDE, SIDE), Image.Resampling.BOX)
    values = np.asarray(grey, np.float64).ravel()
    return (values - values.mean()).astype(np.float16)


def _locations(paths: StringArray, rows: slice) -> list[str]:
    return [paths[row] for row in range(rows.start, rows.stop)]


def _take_fingerprint(location: str) -> tuple[str, np.ndarray, str]:
    """Return (digest, thumbnail, reason why the image is unreadable or "")."""
    try:
        pixels = images.load(location)
    except InputError as error:
        return "", np.zeros(SIDE * SIDE, np.float16), str(error)
    total = hashlib.blake2b(str(pixels.shape).encode(), digest_size=16)
    total.update(pixels.tobytes())
    return total.hexdigest(), shrink(pixels), ""
