"""Index files: round trip, equal bytes, and all damage found before the bytes are used."""

import hashlib

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import search_index
from mltool.files.search_index import SearchIndex

DATA = np.random.default_rng(0).integers(0, 256, 100_003, dtype=np.uint8)


def about(**further):
    names = np.array([f"é {n}.jpg".encode() for n in range(5)], "S")
    given = {
        "names": names,
        "labels": np.array([0, 1, -1, 0, 1]),
        "label_names": ("a", "b"),
        "dim": 4,
        "metric": "cosine",
        "factory": "Flat",
        "space": "f" * 64,
        "recall": 0.987,
        "recall_queries": 5,
        "history": ({"command": "index", "counts": {"vectors": 5}},),
    }
    return SearchIndex(**given | further)


def emit(write):
    for start in range(0, len(DATA), 1000):
        write(DATA[start : start + 1000].tobytes())


def test_round_trip(tmp_path):
    written = about()
    digest = search_index.write(tmp_path / "i.index", written, emit)
    assert search_index.is_index(tmp_path / "i.index")
    found = search_index.read(tmp_path / "i.index")
    assert found.digest == digest
    np.testing.assert_array_equal(found.data, DATA)
    np.testing.assert_array_equal(found.names, written.names)
    np.testing.assert_array_equal(found.labels, written.labels)
    for key in ("label_names", "dim", "metric", "factory", "space", "recall", "history"):
        assert getattr(found, key) == getattr(written, key), key


def test_any_hdf5_program_can_read_it(tmp_path):
    search_index.write(tmp_path / "i.index", about(), emit)
    with h5py.File(tmp_path / "i.index") as file:
        np.testing.assert_array_equal(file["faiss"][()], DATA)
        assert file["names"][1].decode() == "é 1.jpg"
        assert file.attrs["recall"] == 0.987


def test_the_same_index_has_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        search_index.write(tmp_path / name, about(), emit)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


@pytest.mark.parametrize(
    "change",
    [
        {"metric": "dot"},
        {"dim": 5},
        {"factory": "IVF1,Flat"},
        {"space": "e" * 64},
        {"recall": 0.5},
        {"labels": np.array([0, 0, -1, 0, 1])},
        {"label_names": ("a", "c")},
        {"history": ()},
    ],
    ids=lambda change: next(iter(change)),
)
def test_the_digest_covers_everything(tmp_path, change):
    one = search_index.write(tmp_path / "a", about(), emit)
    assert search_index.write(tmp_path / "a", about(**change), emit) != one


def test_damage_anywhere_in_the_content_is_found(tmp_path):
    path = tmp_path / "i.index"
    search_index.write(path, about(), emit)
    whole = path.read_bytes()
    with h5py.File(path) as file:
        start = file["faiss"].id.get_offset()
        labels = file["labels"].id.get_offset()
    for place in (start, start + len(DATA) // 2, start + len(DATA) - 1, labels):
        damaged = bytearray(whole)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged"):
            search_index.read(path)


@pytest.mark.parametrize("part", [0.0, 0.3, 0.999])
def test_truncated_files_are_refused(tmp_path, part):
    path = tmp_path / "i.index"
    search_index.write(path, about(), emit)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError):
        search_index.read(path)


def test_other_files_are_refused(tmp_path):
    (tmp_path / "text").write_text("no index")
    with pytest.raises(InputError, match="not an HDF5 file"):
        search_index.read(tmp_path / "text")
    assert not search_index.is_index(tmp_path / "text")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = [1]
    assert not search_index.is_index(tmp_path / "other.h5")
    with pytest.raises(InputError, match="mltool-index"):
        search_index.read(tmp_path / "other.h5")
    assert not search_index.is_index(tmp_path)


def test_a_newer_format_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(search_index, "FORMAT_VERSION", 2)
    search_index.write(tmp_path / "i.index", about(), emit)
    monkeypatch.setattr(search_index, "FORMAT_VERSION", 1)
    with pytest.raises(InputError, match="newer mltool"):
        search_index.read(tmp_path / "i.index")


def test_the_bytes_lie_as_they_were_streamed(tmp_path):
    search_index.write(tmp_path / "i.index", about(), emit)
    with h5py.File(tmp_path / "i.index") as file:
        start = file["faiss"].id.get_offset()
    raw = (tmp_path / "i.index").read_bytes()[start : start + len(DATA)]
    assert hashlib.sha256(raw).digest() == hashlib.sha256(DATA.tobytes()).digest()
