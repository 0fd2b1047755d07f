"""Decoded, resized pixels in memory that all loading processes share."""

import mmap
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path

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
        self.capacity = min(
            wanted, int(SHARE_OF_FREE_MEMORY * measure_free_memory() / count_local_processes())
        )
        self._pixels = mmap.mmap(-1, max(self.capacity, 1))
        self._index = np.frombuffer(mmap.mmap(-1, max(24 * images, 1)), np.int64, 3 * images)
        self._index = self._index.reshape(images, 3)  # offset, height, width; height 0 = absent
        self._used = np.frombuffer(mmap.mmap(-1, 8), np.int64)
        self._lock = multiprocessing.get_context("fork").Lock()

    def get(self, row: int) -> np.ndarray | None:
        """Return the image [H, W, 3] of a row, None where it is not kept."""
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


def count_local_processes() -> int:
    """Count the processes of this run on this machine, which all keep images."""
    told = (os.environ.get(name) for name in ("LOCAL_WORLD_SIZE", "SLURM_NTASKS_PER_NODE"))
    return max([int(text) for text in told if text and text.isdecimal()], default=1)


def measure_free_memory() -> int:
    """Return the bytes this process may take: of the machine, or of a smaller control group."""
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        with open("/proc/meminfo", encoding="ascii") as file:
            fields = dict(line.split(":") for line in file)
        free = int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError, ValueError):
        pass  # not Linux: the count of free pages will do
    return max(min([free, *measure_room_in_groups()]), 0)


def measure_room_in_groups(root: Path = Path("/")) -> Iterator[int]:
    """Yield the bytes left in each control group around this process that has a limit.

    Slurm limits a job, container engines a container: on a large node that is far less than the
    machine has.
    """
    try:
        lines = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return  # not Linux
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            top, limit, used = root / "sys/fs/cgroup", "memory.max", "memory.current"
        elif "memory" in controllers.split(","):
            top = root / "sys/fs/cgroup/memory"
            limit, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
        else:
            continue
        inner = top / path.lstrip("/")
        for group in (inner, *inner.parents):
            try:
                left = int((group / limit).read_text()) - int((group / used).read_text())
                yield left + _reclaimable(group)
            except (OSError, ValueError):
                continue  # no such group, or `max`: no limit


def _reclaimable(group: Path) -> int:
    """Return the bytes of files that the kernel keeps for speed and drops on demand."""
    lines = (group / "memory.stat").read_text().splitlines()
    return int(dict(line.split() for line in lines).get("inactive_file", 0))
