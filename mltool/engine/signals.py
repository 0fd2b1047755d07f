"""Signals become a flag that the loop reads between two steps."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

# USR1 and USR2 are what Slurm and submitit send ahead of a preemption or a time limit, HUP comes
# when a terminal closes.
WATCHED = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)

# A launcher and the system may both pass on one request: signals this close are one.
TOGETHER_SECONDS = 1.0


@dataclass
class Stop:
    """`requested` turns true at the first signal; a second one ends the process at once."""

    requested: bool = False
    since: float = 0.0


@contextmanager
def watch() -> Iterator[Stop]:
    """Handle the signals in WATCHED, but for ignored ones (nohup), while the block runs."""
    stop = Stop()

    def handle(number: int, frame: FrameType | None) -> None:
        if not stop.requested:
            stop.requested, stop.since = True, time.monotonic()
        elif time.monotonic() - stop.since > TOGETHER_SECONDS:
            raise SystemExit(128 + number)

    heard = [number for number in WATCHED if signal.getsignal(number) != signal.SIG_IGN]
    before = {number: signal.signal(number, handle) for number in heard}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
