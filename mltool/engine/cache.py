"""Decoded, resized pixels in memory that all loading processes share."""

import mmap
import multiprocessing
import os

import numpy as np

# Of the memory that is free when the run starts, so that a neighbour's job is not pushed out.
SHARE_OF_FREE_MEMORY = 0.5


class PixelCache:
    """Images by row number, as many as fit; the rest is decoded again each time.

    The bytes lie in one anonymous shared mapping, which forked loader processes fill together and
    which the kernel frees with the last of them, however they die.
    """

    def __init__(self, images: int, *, bytes_per_image: int) -> None:
        wanted = max(images * bytes_per_image, 1)
        self.capacity = min(wanted, int(SHARE_OF_FREE_MEMORY * free_memory()))
        self._pixels = mmap.mmap(-1, max(self.capacity, 1))
        self._index = np.frombuffer(mmap.mmap(-1, max(24 * images, 1)), np.int64, 3 * images)
        self._index = self._index.reshape(images, 3)  # offset, height, width; height 0 = absent
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, row: int) -> np.ndarray | None:
        """The image [H, W, 3] of a row, or None."""
        with self._lock:
            offset, height, width = self._index[row].tolist()
        if not height:
            return None
        size = height * width * 3
        return np.frombuffer(self._pixels, np.uint8, size, offset).reshape(height, width, 3)

    def put(self, row: int, image: np.ndarray) -> None:
        """Keep an image [H, W, 3] if there is room."""
        with self._lock:
            offset = int(self._used[0])
            if offset + image.nbytes > self.capacity or self._index[row, 1]:
                return
            self._used[0] = offset + image.nbytes
        room = np.frombuffer(self._pixels, np.uint8, image.nbytes, offset)
        room[:] = np.ascontiguousarray(image).reshape(-1)
        with self._lock:
            self._index[row] = offset, image.shape[0], image.shape[1]


def free_memory() -> int:
    """Bytes this process may still take: of the machine, or of its control group if less."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass  # not Linux: the count of free pages will do
    for limit, used in (
        ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
        (
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.usage_in_bytes",
        ),
    ):
        try:
            with open(limit, encoding="ascii") as most, open(used, encoding="ascii") as now:
                free = min(free, int(most.read()) - int(now.read()))
        except (OSError, ValueError):
            continue  # no such controller, or `max`: no limit
    return max(free, 0)
