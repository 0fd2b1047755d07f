"""The training log: one JSON object a line, cut back to the saved step on resume."""

import json
import os
from types import TracebackType
from typing import Self

from mltool.errors import InputError
from mltool.files import atomic


class Log:
    """Appends {"step", "epoch", "name", "value"} lines to a file; without a path does nothing.

    Raises ResourceError when the file cannot be written.
    """

    def __init__(self, path: str | None, *, after_step: int = 0) -> None:
        """Keep what an existing log says up to `after_step`, drop the rest (all, if it is 0)."""
        self._file, self._path = None, path or ""
        if path is not None:
            kept = _measure_kept(path, after_step) if after_step else 0
            with atomic.report_errors(path):
                self._file = open(path, "ab")  # noqa: SIM115 - closed by __exit__
                self._file.truncate(kept)

    def write(self, *, step: int, epoch: int, values: dict[str, float]) -> None:
        """Append one line per value."""
        if self._file is None:
            return
        lines = [
            json.dumps({"step": step, "epoch": epoch, "name": name, "value": value}).encode()
            for name, value in values.items()
        ]
        with atomic.report_errors(self._path):
            self._file.write(b"".join(line + b"\n" for line in lines))

    def flush(self) -> None:
        """Put everything on disk, before a state that counts these lines as written is saved."""
        if self._file is not None:
            with atomic.report_errors(self._path):
                self._file.flush()
                os.fsync(self._file.fileno())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None:
            with atomic.report_errors(self._path):
                self._file.close()


def _measure_kept(path: str, after_step: int) -> int:
    """Measure the bytes of the leading lines that belong to steps up to `after_step`."""
    size = 0
    try:
        with open(path, "rb") as file:
            for line in file:
                if not line.endswith(b"\n") or json.loads(line)["step"] > after_step:
                    break
                size += len(line)
    except FileNotFoundError:
        return 0
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{path}: not a log of mltool; move it away or name another") from None
    return size
