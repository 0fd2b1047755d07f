"""`verify` tells files by their content and says whether they are whole."""

import os
from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings, history, pack_writer, safetensors_file, search_index, verify
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.files.search_index import SearchIndex


def write_image_list(path: Path) -> None:
    path.write_text("path,label\na.jpg,cat\n")
    history.write_sidecar(path, ({"command": "pseudolabel"},))


def write_pack(path: Path) -> None:
    from PIL import Image

    image = path.with_suffix(".png")
    Image.new("RGB", (4, 4)).save(image)
    labels, label_names = np.array([0]), ("cat",)
    paths = StringArray.from_texts([os.fspath(image)])
    manifest = Manifest(np.array([b"a.png"]), paths, labels, label_names, {}, "")
    pack_writer.write(path, manifest)


def write_index(path: Path) -> None:
    labels = np.zeros(2, np.int64)
    index = SearchIndex(np.array([b"a", b"b"]), labels, dim=3, metric="cosine", factory="Flat")
    search_index.write(path, index, lambda take: take(bytes(range(200))))


WRITERS = {
    "embeddings": lambda path: embeddings.write(path, Embeddings(["a"], np.eye(1))),
    "checkpoint": lambda path: safetensors_file.write(path, {"w": np.eye(3)}, meta={}),
    "image list": write_image_list,
    "pack": write_pack,
    "index": write_index,
}


@pytest.mark.parametrize("kind", WRITERS)
def test_kinds_are_told_by_content(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "any name"
    WRITERS[kind](path)
    for full in (False, True):
        assert verify.check(path, full=full) == kind


@pytest.mark.parametrize("kind", WRITERS)
def test_a_missing_byte_is_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    WRITERS[kind](path)
    whole = path.read_bytes()
    for size in (*range(0, len(whole), max(1, len(whole) // 10)), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=str(path)):
            verify.check(path, full=False)


# the digest of an index is of its content: unused bytes between are not covered
@pytest.mark.parametrize("kind", sorted(WRITERS.keys() - {"index"}))
def test_a_changed_byte_is_found(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "file"
    WRITERS[kind](path)
    whole = path.read_bytes()
    random = np.random.default_rng(0)
    for place in random.integers(len(whole), size=60):
        broken = bytearray(whole)
        broken[place] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        with pytest.raises(InputError):
            verify.check(path, full=True)


def test_texts(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text('{"map": 1}')
    with pytest.raises(InputError, match="no file that mltool wrote"):
        verify.check(path, full=False)
    history.write_sidecar(path, ())
    assert verify.check(path, full=True) == "text"
    (tmp_path / "plain.csv").write_text("label,path\ncat,a.jpg\n")
    assert verify.check(tmp_path / "plain.csv", full=True) == "image list"
    (tmp_path / "wrong.csv").write_text("path,label\na.jpg,cat,dog\n")
    with pytest.raises(InputError):
        verify.check(tmp_path / "wrong.csv", full=True)


def test_what_is_no_file_of_ours(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").touch()
    (tmp_path / "noise").write_bytes(np.random.default_rng(0).bytes(5000))
    (tmp_path / "pickle.pt").write_bytes(b"\x80\x04.")
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = 3
    for name in (*os.listdir(tmp_path), "missing", "."):
        with pytest.raises(InputError) as caught:
            verify.check(tmp_path / name, full=False)
        assert str(tmp_path / name) in str(caught.value)
