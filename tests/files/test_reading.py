"""Inputs that are no readable regular files are refused in one sentence, and never waited for."""

import os
from pathlib import Path

import pytest

from mltool.errors import InputError
from mltool.files.reading import open_input


def test_a_regular_file_is_read_from_its_start(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    with open_input(tmp_path / "f") as file:
        assert file.read() == b"abc"
    assert file.closed


def test_what_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, reason in (
        (tmp_path / "pipe", "not a regular file"),
        (Path(os.devnull), "not a regular file"),
        (tmp_path, "directory"),
        (tmp_path / "missing", "No such file"),
    ):
        with pytest.raises(InputError, match=reason), open_input(path):
            pytest.fail("it was opened")


def test_errors_of_reading_are_reported_as_well(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abc")
    message = r"cannot read .*f: Input/output error; check the path"
    with pytest.raises(InputError, match=message), open_input(tmp_path / "f"):
        raise OSError(5, "Input/output error")
