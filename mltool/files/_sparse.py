"""A file in memory for HDF5 to write into, for a file that is mostly a hole."""

import io
from collections.abc import Iterator


class SparseFile:
    """A file object that holds only the pages that were written; the rest reads as zeros."""

    PAGE = 2**16  # bytes

    def __init__(self) -> None:
        self.size = 0
        self._position = 0
        self._pages: dict[int, bytearray] = {}

    def read_range(self, start: int, stop: int) -> bytes:
        """Return the bytes start..stop."""
        result = bytearray(max(0, stop - start))
        for number, inside, outside in self._pages_of_range(start, stop):
            if number in self._pages:
                result[outside] = self._pages[number][inside]
        return bytes(result)

    def write(self, data: memoryview) -> int:
        view = memoryview(data).cast("B")
        stop = self._position + len(view)
        for number, inside, outside in self._pages_of_range(self._position, stop):
            page = self._pages.setdefault(number, bytearray(self.PAGE))
            page[inside] = view[outside]
        self._position = stop
        self.size = max(self.size, stop)
        return len(view)

    def read(self, size: int) -> bytes:
        data = self.read_range(self._position, min(self._position + size, self.size))
        self._position += len(data)
        return data

    def readinto(self, buffer: memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self.size}[whence]
        self._position = base + offset
        return self._position

    def tell(self) -> int:
        return self._position

    def truncate(self, size: int | None = None) -> int:
        self.size = self._position if size is None else size
        return self.size

    def flush(self) -> None:
        """Return at once: no byte waits to be written."""

    def _pages_of_range(self, start: int, stop: int) -> Iterator[tuple[int, slice, slice]]:
        """Yield (page number, slice of the page, slice of the range) for every page touched."""
        for number in range(start // self.PAGE, -(-stop // self.PAGE)):
            base = number * self.PAGE
            first, last = max(start, base), min(stop, base + self.PAGE)
            yield number, slice(first - base, last - base), slice(first - start, last - start)
