"""Revisited Oxford and Paris on a tiny tree of exactly their layout."""

import os
import pickle

import numpy as np
import pytest

from mltool import components
from mltool.datasets import open_data, roxford5k, rparis6k
from mltool.errors import InputError
from mltool.files import crop_boxes

QUERIES, GALLERY = ["all_souls_000013", "oriel_000001"], ["all_souls_000220", "x.y", "z"]
BOXES = [[136.5, 34.1, 648.5, 955.7], [0.0, 0.0, 10.0, 10.0]]


def truth():
    empty = np.zeros(0, np.int64)
    gnd = [{"bbx": np.array(box), "easy": empty, "hard": empty, "junk": [1]} for box in BOXES]
    return {"imlist": GALLERY, "qimlist": QUERIES, "gnd": gnd}


@pytest.fixture(params=["roxford5k", "rparis6k"])
def tree(request, tmp_path, monkeypatch):
    """(name of the benchmark, the folder above it, the folder)."""
    module = {"roxford5k": roxford5k, "rparis6k": rparis6k}[request.param]
    monkeypatch.setattr(module, "COUNTS", {"query": 2, "gallery": 3})
    folder = tmp_path / request.param
    (folder / "jpg").mkdir(parents=True)
    for name in [*QUERIES, *GALLERY, "unlisted"]:
        (folder / "jpg" / f"{name}.jpg").touch()
    (folder / f"gnd_{request.param}.pkl").write_bytes(pickle.dumps(truth()))
    return request.param, tmp_path, folder


def test_official_counts():
    assert roxford5k.COUNTS == {"query": 70, "gallery": 5_063 - 70}
    assert rparis6k.COUNTS == {"query": 70, "gallery": 6_392 - 70}


def test_queries_come_cropped_and_the_gallery_whole(tree):
    name, above, folder = tree
    found = components.load("datasets", name)(str(above))
    assert found.names.tolist() == [f"{stem}.jpg".encode() for stem in QUERIES + GALLERY]
    assert found.columns["split"].tolist() == [b"query"] * 2 + [b"gallery"] * 3
    assert found.columns["is_query"].tolist() == [True, True, False, False, False]
    assert found.columns["is_gallery"].tolist() == [False, False, True, True, True]
    cut = crop_boxes.from_columns(found.columns)
    assert cut[:2].tolist() == BOXES
    assert np.isnan(cut[2:]).all()
    assert found.root == str(folder / "jpg")
    assert all(os.path.isfile(path) for path in found.paths)
    assert (found.labels == -1).all()
    assert found.label_names == ()


def test_splits_by_name(tree):
    name, _, folder = tree
    assert len(open_data([f"{name}:{folder}"])) == 5
    assert open_data([f"{name}:{folder}:query"]).names.tolist() == [
        f"{stem}.jpg".encode() for stem in QUERIES
    ]
    gallery = open_data([f"{name}:{folder}:gallery"])
    assert len(gallery) == 3
    assert crop_boxes.from_columns(gallery.columns) is None


def test_other_sizes_missing_images_and_boxes_are_refused(tree, monkeypatch):
    name, _, folder = tree
    load = components.load("datasets", name)
    os.remove(folder / "jpg/z.jpg")
    with pytest.raises(InputError, match=r"1 of 5 images are missing \(z\.jpg\)"):
        load(str(folder))
    path = folder / f"gnd_{name}.pkl"
    one = truth()
    del one["gnd"][1]["bbx"]
    path.write_bytes(pickle.dumps(one))
    with pytest.raises(InputError, match="a query lacks its bbx"):
        load(str(folder))
    path.write_bytes(pickle.dumps(truth() | {"imlist": GALLERY[:2]}))
    with pytest.raises(InputError, match=r"gallery split of .* has 3 images, but here are 2"):
        load(str(folder))
    path.write_bytes(pickle.dumps(truth() | {"imlist": [*GALLERY[:2], QUERIES[0]]}))
    with pytest.raises(InputError, match="more than once"):
        load(str(folder))
    os.remove(path)
    with pytest.raises(InputError, match=rf"there is no gnd_{name}\.pkl"):
        load(str(folder))
