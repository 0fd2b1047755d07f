import logging
import os
import random

import pytest

from mltool.errors import InputError
from mltool.files.lists import folder as module
from mltool.files.lists.folder import is_image_name, read_folder


def touch(root, *names):
    for name in names:
        path = os.path.join(os.fsencode(root), name if isinstance(name, bytes) else name.encode())
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb"):
            pass


def names_of(images):
    return [name.decode() for name in images.names.tolist()]


def test_the_class_is_the_parent_folder(tmp_path):
    touch(tmp_path, "dog/2.jpg", "dog/10.JPEG", "cat/1.png", "deep/er/cat/3.tiff", "top.webp")
    images = read_folder(str(tmp_path))
    assert names_of(images) == [
        "cat/1.png",
        "deep/er/cat/3.tiff",
        "dog/10.JPEG",
        "dog/2.jpg",
        "top.webp",
    ]
    assert images.label_names == ("cat", "dog")
    assert images.labels.tolist() == [0, 0, 1, 1, -1]
    assert images.root == str(tmp_path)
    assert images.paths[0] == str(tmp_path / "cat/1.png")
    assert images.columns == {}


def test_numbered_classes_are_in_number_order(tmp_path):
    touch(tmp_path, "10/a.jpg", "9/a.jpg")
    assert read_folder(str(tmp_path)).label_names == ("9", "10")


def test_order_does_not_depend_on_the_file_system(tmp_path, monkeypatch):
    touch(tmp_path, *(f"{c}{sep}{n}.jpg" for c in "ab" for sep in ("/", "-", "0/") for n in "123"))
    touch(tmp_path, "../outside/x.jpg")
    for link in ("b-link", "a-link", "c-link"):
        os.symlink(tmp_path.parent / "outside", tmp_path / link)
    expected = read_folder(str(tmp_path))
    assert names_of(expected) == sorted(names_of(expected))
    assert [name for name in names_of(expected) if "link" in name] == ["a-link/x.jpg"]

    def shuffled(path):
        with scandir(path) as entries:
            entries = list(entries)
        random.Random(len(path)).shuffle(entries)
        return entries

    scandir = os.scandir
    monkeypatch.setattr(module.os, "scandir", shuffled)
    again = read_folder(str(tmp_path))
    assert names_of(again) == names_of(expected)
    assert list(again.paths) == list(expected.paths)


def test_a_relative_folder_becomes_absolute(tmp_path, monkeypatch):
    touch(tmp_path, "photos/a/1.jpg")
    monkeypatch.chdir(tmp_path)
    for text in ("photos", "photos/", "./photos"):
        images = read_folder(text)
        assert images.paths[0] == str(tmp_path / "photos/a/1.jpg")
        assert images.root == str(tmp_path / "photos")


def test_what_is_skipped_is_counted(tmp_path, caplog):
    touch(tmp_path, "a/1.jpg", "a/._1.jpg", ".git/x.jpg", "a/notes.txt", "a/noimage")
    os.mkfifo(tmp_path / "a/pipe.jpg")
    os.symlink(tmp_path / "nowhere", tmp_path / "a/broken.jpg")
    with caplog.at_level(logging.INFO):
        images = read_folder(str(tmp_path))
    assert names_of(images) == ["a/1.jpg"]
    assert "2 hidden, 2 that are no files, 2 without an image's suffix" in caplog.text


def test_links_are_followed_once(tmp_path, caplog):
    touch(tmp_path, "real/z/1.jpg", "elsewhere/c/2.jpg")
    os.symlink(tmp_path / "real/z", tmp_path / "real/a")  # found first, but z needs no link
    os.symlink(tmp_path / "real", tmp_path / "real/z/loop")
    os.symlink(tmp_path / "elsewhere/c", tmp_path / "real/c")
    os.symlink(tmp_path / "elsewhere/c/2.jpg", tmp_path / "real/z/3.jpg")
    os.symlink(tmp_path / "real/self", tmp_path / "real/self")
    with caplog.at_level(logging.INFO):
        images = read_folder(str(tmp_path / "real"))
    assert names_of(images) == ["c/2.jpg", "z/1.jpg", "z/3.jpg"]
    assert "2 links to folders read already" in caplog.text


def test_equal_folder_names_are_one_class_and_said_so(tmp_path, caplog):
    touch(tmp_path, "x/same/1.jpg", "y/same/1.jpg")
    images = read_folder(str(tmp_path))
    assert images.label_names == ("same",)
    assert "2 folders make 1 classes" in caplog.text


@pytest.mark.parametrize(
    "name",
    [
        "-rf.jpg",
        "a b .jpg",
        "tab\tline\n.jpg",
        "é.jpg",
        "e\u0301.jpg",
        "😀\u202e.jpg",
        '"q",\'.jpg',
        "a:b::c.jpg",
        "\x1b[31m.jpg",
        "n" * 251 + ".jpg",
    ],
)
def test_odd_names_are_kept(tmp_path, name):
    touch(tmp_path, f"class/{name}", "class/other.jpg")
    images = read_folder(str(tmp_path))
    assert f"class/{name}" in names_of(images)
    for path in images.paths:
        assert os.path.isfile(path)


def test_names_that_are_not_utf8(tmp_path):
    touch(tmp_path, b"cl\xe9/\xff.jpg", "clz/a.jpg")
    images = read_folder(str(tmp_path))
    assert names_of(images) == ["cl%E9/%FF.jpg", "clz/a.jpg"]
    assert images.label_names == ("cl%E9", "clz")
    assert os.fsencode(images.paths[0]).endswith(b"cl\xe9/\xff.jpg")
    assert os.path.isfile(images.paths[0])


def test_names_that_would_be_equal_are_refused(tmp_path):
    touch(tmp_path, b"\xff.jpg", "%FF.jpg")
    with pytest.raises(InputError, match=r"more than once \(%FF\.jpg\)"):
        read_folder(str(tmp_path))


def test_a_folder_without_images(tmp_path):
    (tmp_path / "class").mkdir()
    touch(tmp_path, "class/readme.txt")
    with pytest.raises(InputError, match=r"holds no images \(\.jpg"):
        read_folder(str(tmp_path))
    with pytest.raises(InputError, match="missing"):
        read_folder(str(tmp_path / "missing"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read(tmp_path):
    touch(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "b").chmod(0)
    with pytest.raises(InputError, match="Permission denied"):
        read_folder(str(tmp_path))


def test_suffixes():
    assert is_image_name(b"x.JPG")
    assert is_image_name(b"dir/x.tif")
    assert not is_image_name(b"x.jpg.txt")
    assert not is_image_name(b"jpg")
