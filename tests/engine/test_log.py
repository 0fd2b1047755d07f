"""The log is JSON lines and never says more than the saved state knows."""

import errno
import json
import os
from pathlib import Path

import pytest

from mltool.engine.log import Log
from mltool.errors import InputError, ResourceError


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "log.jsonl"
    with Log(str(path)) as log:
        for step in range(1, 6):
            log.write(step=step, epoch=step // 3, values={"loss": 1 / step, "extra": float(step)})
    return path


def test_one_object_a_line(written: Path) -> None:
    assert lines(written)[2] == {"step": 2, "epoch": 0, "name": "loss", "value": 0.5}
    assert len(lines(written)) == 10


@pytest.mark.parametrize("after", [1, 3, 5, 99])
def test_resuming_cuts_back_to_the_saved_step(written: Path, after: int) -> None:
    before = lines(written)
    with Log(str(written), after_step=after) as log:
        log.write(step=after + 1, epoch=9, values={"loss": 0.0})
    found = lines(written)
    assert found[:-1] == [line for line in before if line["step"] <= after]
    assert found[-1]["epoch"] == 9


def test_a_torn_last_line_is_dropped(written: Path) -> None:
    whole = written.read_bytes()
    for cut in range(1, 40):
        written.write_bytes(whole[:-cut])
        with Log(str(written), after_step=5):
            pass
        assert whole.startswith(written.read_bytes())
        assert all(line["step"] for line in lines(written))


def test_a_fresh_run_starts_an_empty_log(written: Path) -> None:
    with Log(str(written)):
        pass
    assert written.read_bytes() == b""


def test_a_lost_log_is_no_obstacle(tmp_path: Path) -> None:
    with Log(str(tmp_path / "new.jsonl"), after_step=7) as log:
        log.write(step=8, epoch=0, values={"loss": 1.0})
    assert len(lines(tmp_path / "new.jsonl")) == 1


@pytest.mark.parametrize("text", ["holiday photos\n", "[1, 2]\n", '{"other": 1}\n', "7\n"])
def test_another_file_is_not_overwritten(tmp_path: Path, text: str) -> None:
    path = tmp_path / "diary.txt"
    path.write_text(text)
    with pytest.raises(InputError, match="not a log"):
        Log(str(path), after_step=3)
    assert path.read_text() == text


def test_flush_reaches_other_readers(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Log(str(path)) as log:
        log.write(step=1, epoch=0, values={"loss": 1.0})
        log.flush()
        assert len(lines(path)) == 1


def test_without_a_path_nothing_happens() -> None:
    with Log(None, after_step=3) as log:
        log.write(step=1, epoch=0, values={"loss": 1.0})
        log.flush()


def test_an_unwritable_log_is_said_in_a_sentence(tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ResourceError, match="create its folder"):
        Log(str(tmp_path / "missing" / "log.jsonl"))

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with Log(str(tmp_path / "log.jsonl")) as log:
        monkeypatch.setattr(os, "fsync", full)
        with pytest.raises(ResourceError, match=r"log\.jsonl: No space left.*free some space"):
            log.flush()
