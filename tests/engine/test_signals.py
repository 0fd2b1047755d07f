"""The first signal raises a flag, the second ends the process, and handlers are put back."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest

from mltool.engine.signals import WATCHED, watch


@pytest.fixture(autouse=True)
def no_nohup() -> Iterator[None]:
    """Tests started by nohup ignore SIGHUP."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("number", WATCHED, ids=lambda n: n.name)
def test_the_first_signal_only_raises_a_flag(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with watch() as stop:
        assert not stop.requested
        os.kill(os.getpid(), number)
        assert stop.requested
        os.kill(os.getpid(), number)  # at once: the same request, passed on by a launcher too
    assert signal.getsignal(number) == before


def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with watch() as stop:
        os.kill(os.getpid(), signal.SIGHUP)
        assert not stop.requested
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


def test_handlers_are_put_back_after_an_error() -> None:
    before = [signal.getsignal(number) for number in WATCHED]
    with pytest.raises(KeyError), watch():
        raise KeyError
    assert [signal.getsignal(number) for number in WATCHED] == before


@pytest.mark.parametrize(("second", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_the_second_signal_ends_the_process(second: signal.Signals, status: int) -> None:
    code = f"""
import os, signal
from mltool.engine import signals
with signals.watch() as stop:
    os.kill(os.getpid(), signal.SIGUSR1)
    stop.since -= signals.TOGETHER_SECONDS
    print("still here", stop.requested, flush=True)
    os.kill(os.getpid(), {int(second)})
    print("never", flush=True)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (status, "still here True\n")
