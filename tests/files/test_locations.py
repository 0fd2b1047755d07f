"""Locations of images go into a text and come back, wherever the text lies."""

import os
from pathlib import Path

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import digits, locations, pack_writer
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray


@pytest.fixture
def pack(tmp_path: Path) -> str:
    path = str(tmp_path / "data" / "p.h5")
    os.mkdir(tmp_path / "data")
    names = np.array([b"one", b"two"])
    paths = StringArray.from_texts(["digits\0" + "5", "digits\0" + "6"])
    pack_writer.write(path, Manifest(names, paths, np.array([-1, -1]), (), {}, ""))
    return path


def test_texts_are_relative_to_their_folder(tmp_path: Path, pack: str) -> None:
    folder = str(tmp_path / "lists")
    os.mkdir(folder)
    stored = [f"{tmp_path}/data/a.jpg", f"{pack}\0" + "1", "digits\0" + "3"]
    texts = list(locations.to_texts(stored, folder))
    assert texts == ["../data/a.jpg", "../data/p.h5::two", f"digits::{digits.name(3)}"]
    resolved = locations.resolve(texts, folder)
    assert [os.path.normpath(resolved[0]), resolved[2]] == [stored[0], stored[2]]
    source, _, row = resolved[1].partition("\0")
    assert (os.path.samefile(source, pack), row) == (True, "1")
    with pytest.raises(InputError, match="holds no three"):
        locations.resolve(["../data/p.h5::three"], folder)


def test_an_existing_file_is_no_member_of_a_pack(tmp_path: Path) -> None:
    (tmp_path / "odd::name.jpg").write_bytes(b"")
    assert locations.resolve(["odd::name.jpg"], str(tmp_path)) == [str(tmp_path / "odd::name.jpg")]


def test_names_are_located_in_folder_pack_and_digits(tmp_path: Path, pack: str) -> None:
    names = np.array([b"b/c.jpg", b"/abs/d.jpg"])
    assert list(locations.locate("/root", names)) == ["/root/b/c.jpg", "/abs/d.jpg"]
    inside = np.array([b"two", b"one"])
    assert list(locations.locate(pack, inside)) == [f"{pack}\0" + "1", f"{pack}\0" + "0"]
    with pytest.raises(InputError, match="holds no three"):
        locations.locate(pack, np.array([b"three"]))
    digit = np.array([digits.name(9).encode()])
    assert list(locations.locate(locations.DIGITS, digit)) == [digits.location(9)]


def test_the_root_locates_all_images_or_there_is_none(pack: str) -> None:
    names = np.array([b"a.jpg", b"b/c.jpg"])
    whole = StringArray.from_texts(["/r/a.jpg", "/r/b/c.jpg"])
    assert locations.root_of(names, whole) == "/r"
    assert locations.root_of(names, StringArray.from_texts(["/r/a.jpg", "/s/b/c.jpg"])) == ""
    assert locations.root_of(names, StringArray.from_texts(["/r/x.jpg", "/r/b/c.jpg"])) == ""
    inside = np.array([b"two", b"one"])
    assert locations.root_of(inside, locations.locate(pack, inside)) == os.path.realpath(pack)
    assert locations.root_of(inside, locations.locate(pack, inside[::-1])) == ""


def test_a_column_path_only_where_names_do_not_locate() -> None:
    names = np.array([b"a.jpg"])
    assert locations.path_column(names, StringArray.from_texts(["/r/a.jpg"]), "/r") == {}
    column = locations.path_column(names, StringArray.from_texts(["/r/x.jpg"]), "/s")
    assert column["path"].tolist() == [b"../r/x.jpg"]
    digit = np.array([digits.name(4).encode()])
    assert locations.are_digits(digit)
    assert locations.path_column(digit, locations.locate(locations.DIGITS, digit), "/s") == {}


def test_messages_show_no_invisible_characters() -> None:
    assert locations.describe("/p\n.h5\0" + "3") == "/p\\n.h5 row 3"
    assert locations.describe("/a.jpg") == "/a.jpg"


@pytest.mark.parametrize(
    ("text", "absolute"),
    [
        ("a/b.jpg", "/old/a/b.jpg"),
        ("../b.jpg", "/old/../b.jpg"),
        ("/data/b.jpg", "/data/b.jpg"),
        ("p.h5::in/side", "/old/p.h5::in/side"),
        ("digits::digits/0007", "digits::digits/0007"),
        ("", ""),
    ],
)
def test_texts_move_to_another_folder_without_a_look_at_the_disk(text: str, absolute: str) -> None:
    assert locations.join_text("/old", text) == absolute
    moved = locations.relative_text("/new", absolute)
    assert os.path.normpath(locations.join_text("/new", moved)) == os.path.normpath(absolute)
    assert not moved.startswith("/")
