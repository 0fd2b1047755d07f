"""Progress of long work: a bar on a terminal, plain lines in a log file."""

import logging
import sys
import time
from types import TracebackType
from typing import Self

logger = logging.getLogger(__name__)

LINE_EVERY_SECONDS = 30.0
LINE_EVERY_FRACTION = 0.05
LINE_AT_LEAST_SECONDS = 2.0


class Progress:
    """Progress of `total` units of work on standard error, counted from `start`.

    On a terminal a rich bar; otherwise one plain line every 30 s or 5 %, because a log file must
    show life without drowning in redrawn bars.
    """

    def __init__(self, label: str, total: int, *, unit: str = "images", start: int = 0) -> None:
        self.label, self.total, self.unit, self.start = label, total, unit, start
        self._started = self._last_time = time.monotonic()
        self._last_done = start
        self._bar = _rich_bar(label, total, start)

    def update(self, done: int, note: str = "") -> None:
        """Show that `done` units are done; `note`, such as a loss, stands at the end."""
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=done, note=note)
            return
        now = time.monotonic()
        waited = now - self._last_time
        grown = (done - self._last_done) / max(self.total, 1)
        due = waited >= LINE_EVERY_SECONDS or grown >= LINE_EVERY_FRACTION
        if due and waited >= LINE_AT_LEAST_SECONDS:
            logger.info("%s", self._line(done, note, now))
            self._last_time, self._last_done = now, done

    def _line(self, done: int, note: str, now: float) -> str:
        rate = (done - self.start) / max(now - self._started, 1e-9)
        left = (self.total - done) / rate if rate > 0 else float("inf")
        facts = [f"{self.label}: {100 * done // max(self.total, 1)} % ({done}/{self.total})"]
        facts += [f"{rate:.3g} {self.unit}/s", f"{format_duration(left)} left"]
        return ", ".join(facts + ([note] if note else []))

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.stop()


def format_duration(seconds: float) -> str:
    """Write seconds for people, `95` as `1 min 35 s`."""
    if seconds == float("inf"):
        return "unknown time"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def _rich_bar(label: str, total: int, start: int):  # type: ignore[no-untyped-def]
    """Return a rich bar; None where nothing is shown or standard error is no terminal."""
    quiet = not logger.isEnabledFor(logging.INFO)
    if quiet or not sys.stderr.isatty():
        return None
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as RichProgress

    bar = RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
        console=Console(stderr=True),
        transient=True,
    )
    bar.add_task(label, total=total, completed=start, note="")
    return bar
