"""Loading processes: how many, what they load, how they end, and what is said if one dies."""

import functools
import os
import signal
import sys
import threading
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import cast

from torch.utils.data import DataLoader, Dataset

from mltool.engine.data import Batch, BatchSource
from mltool.engine.samplers import Rows
from mltool.engine.signals import WATCHED
from mltool.errors import InputError, ResourceError
from mltool.processors import usable_cores


def batch_rows(rows: Sequence[int], batch_size: int, *, views: int = 1) -> Iterator[Rows]:
    """Yield the rows in batches of at most `batch_size` rows, each with its first `views` draws."""
    for start in range(0, len(rows), batch_size):
        batch = rows[start : start + batch_size]
        yield [(row, view) for row in batch for view in range(views)]


def load(
    source: BatchSource, batches: Iterable[Rows], *, workers: int, stall_timeout: float = 600.0
) -> Iterator[Batch]:
    """Yield a batch for each list of (row, draw), in order, loaded by `workers` processes.

    Raises InputError for an unreadable image (unless the source skips), ResourceError when no
    batch comes for `stall_timeout` seconds or a loading process dies.
    """
    with warnings.catch_warnings():  # of more workers than cores: they were asked for
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: DataLoader = DataLoader(
            cast(Dataset, source),
            batch_sampler=batches,
            num_workers=workers,
            collate_fn=_keep_whole,
            worker_init_fn=functools.partial(_exit_with_parent, os.getpid()),
            multiprocessing_context="fork" if workers else None,
            timeout=stall_timeout if workers else 0,
        )
        with _block_signals():
            iterator = iter(loader)
    with report_dead_loaders():
        for batch in iterator:
            if isinstance(batch, str):
                raise InputError(batch)
            yield batch


@contextmanager
def report_dead_loaders() -> Iterator[None]:
    """Raise ResourceError when a loading process died or no batch came in time.

    Torch tells of a death by a signal, so the error can come up anywhere in the parent: what works
    on batches stands in such a block as well.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        reason = str(error).partition("\n")[0]
        torn = not isinstance(error, RuntimeError) and not reason.startswith("Caught")
        if not torn and not reason.startswith("DataLoader"):
            raise  # a bug in a loader, with its traceback
        reason = "a loading process died" if torn else reason
        raise ResourceError(f"loading images stopped: {reason}; try fewer --workers") from None


def _keep_whole(batch: list) -> list:
    """Return a batch as it is: `__getitems__` gives a whole one, or a reason, and no list."""
    return batch


@contextmanager
def _block_signals() -> Iterator[None]:
    """Hide the signals by which a run is stopped from processes forked in the block.

    The parent decides when to stop, but terminals, `timeout` and Slurm signal whole groups.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, WATCHED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _exit_with_parent(parent: int, worker: int) -> None:
    """Let this process end when its parent, and nobody else, sends SIGTERM or is gone."""
    # errors of loading travel to the parent; a batch that nobody takes any more is none
    sys.excepthook = lambda kind, error, trace: None
    if hasattr(signal, "sigtimedwait"):
        threading.Thread(target=_wait_for_parent, args=[parent], daemon=True).start()
    else:  # macOS cannot tell who sent it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _wait_for_parent(parent: int) -> None:
    while os.getppid() == parent:  # torch asks too, but misses a death before its first look
        sent = signal.sigtimedwait({signal.SIGTERM}, 5.0)
        if sent is not None and sent.si_pid == parent:
            break
    os._exit(0)


def default_workers() -> int:
    """Return how many loading processes suit this machine: its usable cores, four at most."""
    return min(4, usable_cores())
