"""Facts about a file: what `info` prints, of every kind of file."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings, hits, pack_writer, safetensors_file, search_index
from mltool.files.describe import read_facts
from mltool.files.embeddings import Embeddings
from mltool.files.hits import Hits
from mltool.files.lists import csv_list
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.files.search_index import SearchIndex

NAMES = np.array([b"a", b"b", b"c"])
LABELS = np.array([0, 1, -1])
VECTORS = np.arange(6, dtype=np.float16).reshape(3, 2)


def list_digits() -> Manifest:
    split = np.array([b"train", b"test", b"train"])
    paths = StringArray.from_texts(f"digits\0{row}" for row in range(3))
    return Manifest(NAMES, paths, LABELS, ("x", "y"), {"split": split}, "")


def test_embeddings(tmp_path: Path) -> None:
    whole = Embeddings(NAMES, VECTORS, LABELS, columns={"weight": np.ones(3)}, space="s")
    digest = embeddings.write(tmp_path / "e.h5", whole)
    facts = read_facts(str(tmp_path / "e.h5"))
    expected = {"kind": "embeddings", "images": 3, "dim": 2, "views": 1, "dtype": "float16"}
    expected |= {"classes": 2, "unlabelled": 1, "columns": ["weight"], "space": "s"}
    assert {**facts, **expected, "digest": digest} == facts
    assert facts["bytes"] == (tmp_path / "e.h5").stat().st_size


def test_image_lists_and_packs(tmp_path: Path) -> None:
    csv_list.write_csv(tmp_path / "list.csv", list_digits())
    summary = pack_writer.write(tmp_path / "p.h5", list_digits())
    expected = {"images": 3, "classes": 2, "unlabelled": 1, "split train": 2, "split test": 1}
    for name, kind in (("list.csv", "image list"), ("p.h5", "pack")):
        facts = read_facts(str(tmp_path / name))
        assert {**facts, **expected, "kind": kind} == facts
    assert facts["digest"] == summary.digest


def test_indexes_and_hits(tmp_path: Path) -> None:
    about = SearchIndex(NAMES, LABELS, 2, "cosine", "Flat")
    digest = search_index.write(tmp_path / "i.h5", about, lambda put: put(b"faiss"))
    size = (tmp_path / "i.h5").stat().st_size
    assert read_facts(str(tmp_path / "i.h5")) == {"kind": "index", "bytes": size, "digest": digest}
    hits.write(tmp_path / "h.h5", Hits(NAMES, NAMES[:, None], np.ones((3, 1))), ())
    assert read_facts(str(tmp_path / "h.h5"))["kind"] == "hits"


def test_tensors(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    meta: dict[str, object] = {"spec": {"dim": 2}, "classes": ["x", "y"], "cost": {"seconds": 3}}
    digest = safetensors_file.write(path, {"a": np.ones(2)}, meta=meta)
    facts = read_facts(str(path))
    expected = {"kind": "checkpoint", "dim": 2, "seconds": 3, "classes": 2, "digest": digest}
    assert {**facts, **expected} == facts
    safetensors_file.write(path, {"a": np.ones(2)}, meta={})
    assert read_facts(str(path))["kind"] == "safetensors without an mltool model"
    running: dict[str, object] = {"partial_version": 1, "counters": {"step": 7}}
    safetensors_file.write(path, {"a": np.ones(2)}, meta=running)
    assert read_facts(str(path))["step"] == 7


def test_foreign_files_are_refused(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["x"] = np.ones(3)
    with pytest.raises(InputError, match="not one of mltool"):
        read_facts(str(tmp_path / "f.h5"))
    (tmp_path / "f.txt").write_text("nothing\n")
    with pytest.raises(InputError, match="no image list"):
        read_facts(str(tmp_path / "f.txt"))
