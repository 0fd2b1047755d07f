"""Progress lines say how far, how fast and how long, and not too often."""

import logging

import pytest

from mltool import progress
from mltool.progress import Progress, format_duration


class Clock:
    """A clock that the test moves."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(progress, "time", clock)
    return clock


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (95, "1 min 35 s"),
        (3599.7, "1 h 0 min"),
        (90061, "25 h 1 min"),
        (float("inf"), "unknown time"),
    ],
)
def test_durations(seconds: float, text: str) -> None:
    assert format_duration(seconds) == text


def test_lines_are_rare_and_say_what_is_known(clock: Clock, caplog) -> None:
    with caplog.at_level(logging.INFO), Progress("embed", 1000) as bar:
        for done in range(1, 1001):
            clock.now += 0.1
            bar.update(done, f"loss {done}")
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 20  # every 5 %
    assert lines[0] == "embed: 5 % (50/1000), 10 images/s, 1 min 35 s left, loss 50"
    assert lines[-1].startswith("embed: 100 % (1000/1000)")


def test_slow_work_shows_life_every_half_minute(clock: Clock, caplog) -> None:
    with caplog.at_level(logging.INFO), Progress("train", 10**6, unit="steps") as bar:
        for done in range(1, 100):
            clock.now += 1.0
            bar.update(done)
    assert len(caplog.records) == 3


def test_fast_work_says_nothing(clock: Clock, caplog) -> None:
    with caplog.at_level(logging.INFO), Progress("embed", 10) as bar:
        for done in range(1, 11):
            clock.now += 0.1
            bar.update(done)
    assert not caplog.records


def test_the_rate_counts_from_where_a_resumed_run_starts(clock: Clock, caplog) -> None:
    with caplog.at_level(logging.INFO), Progress("embed", 1000, start=900) as bar:
        clock.now += 10
        bar.update(950)
    assert "5 images/s, 10 s left" in caplog.text


def test_nothing_to_do(clock: Clock, caplog) -> None:
    with caplog.at_level(logging.INFO), Progress("embed", 0) as bar:
        clock.now += 60
        bar.update(0)
    assert "embed: 0 % (0/0), 0 images/s, unknown time left" in caplog.text


def test_a_terminal_gets_a_bar(monkeypatch, caplog) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    with caplog.at_level(logging.INFO), Progress("train", 5) as bar:
        assert bar._bar is not None
        bar.update(3, "loss 0.5")
        task = bar._bar.tasks[0]
        assert (task.completed, task.total, task.fields["note"]) == (3, 5, "loss 0.5")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        assert Progress("train", 5)._bar is None  # --quiet
