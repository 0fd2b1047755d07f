"""retrieval-SfM-120k on a tiny tree of its layout."""

import os
import pickle

import numpy as np
import pytest

from mltool.datasets import open_data, sfm120k
from mltool.errors import InputError

IDS = [f"{number:032x}" for number in range(0xABC123, 0xABC123 + 8)]
SHARED = IDS[2]  # the whitening list has images of the others


def ground_truth():
    train = {"cids": IDS[:5], "cluster": [7, 7, 7, 3, 3], "qidxs": [0, 0, 3], "pidxs": [1, 2, 4]}
    val = {"cids": IDS[5:], "cluster": [7, 7, 8], "qidxs": [1], "pidxs": [0]}
    return {"train": train, "val": val}


def put(root, found, *, protocol=2, name=sfm120k.LISTS):
    os.makedirs(root / "ims", exist_ok=True)
    for key in IDS:
        folder = root / "ims" / key[-2:] / key[-4:-2] / key[-6:-4]
        folder.mkdir(parents=True, exist_ok=True)
        (folder / key).touch()
    (root / name).write_bytes(pickle.dumps(found, protocol=protocol))


@pytest.fixture(autouse=True)
def _small(monkeypatch):
    monkeypatch.setattr(sfm120k, "COUNTS", {"train": (5, 3), "val": (3, 1)})


def named(manifest):
    return [tuple(name.decode() for name in pair) for pair in manifest.names[manifest.pairs]]


TRAIN_PAIRS = [(f"train/{IDS[a]}", f"train/{IDS[b]}") for a, b in ((0, 1), (0, 2), (3, 4))]


def test_official_counts_are_published_ones(monkeypatch):
    monkeypatch.undo()
    assert sfm120k.COUNTS == {"train": (91_642, 181_697), "val": (6_403, 1_691)}


@pytest.mark.parametrize("protocol", [2, 4])
@pytest.mark.parametrize("nested", ["", "train/retrieval-SfM-120k"])
@pytest.mark.parametrize("of", [list, np.array])
def test_images_classes_and_pairs(tmp_path, protocol, nested, of):
    given = {s: {k: of(v) for k, v in part.items()} for s, part in ground_truth().items()}
    put(tmp_path / nested, given, protocol=protocol)
    found = sfm120k.sfm120k(str(tmp_path))
    assert found.names.tolist() == [
        f"{'train' if row < 5 else 'val'}/{key}".encode() for row, key in enumerate(IDS)
    ]
    texts = [found.label_names[label] for label in found.labels]
    assert texts == ["train/7"] * 3 + ["train/3"] * 2 + ["val/7"] * 2 + ["val/8"]
    assert named(found) == [*TRAIN_PAIRS, (f"val/{IDS[6]}", f"val/{IDS[5]}")]
    assert all(os.path.isfile(path) for path in found.paths)
    assert found.paths[0] == str(tmp_path / nested / "ims" / "23" / "c1" / "ab" / IDS[0])
    assert named(open_data([f"sfm120k:{tmp_path}:train"])) == TRAIN_PAIRS
    assert named(open_data([f"sfm120k:{tmp_path}"], split="val")) == named(found)[3:]


def test_the_whitening_list_is_a_split_without_classes(tmp_path):
    put(tmp_path, ground_truth())
    before = open_data([f"sfm120k:{tmp_path}:train"])
    flat = {"cids": [IDS[7], SHARED], "qidxs": [1], "pidxs": [0]}
    put(tmp_path, flat, name=sfm120k.WHITEN)
    found = open_data([f"sfm120k:{tmp_path}:whiten"])
    assert (found.labels == -1).all()
    assert found.label_names == ()
    assert named(found) == [(f"whiten/{SHARED}", f"whiten/{IDS[7]}")]
    assert open_data([f"sfm120k:{tmp_path}:train"]).digest() == before.digest()


def changed(split, **lists):
    found = ground_truth()
    found[split] |= lists
    return found


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({"train": {}}, "no 'cids'"),
        ({"train": ground_truth()["train"]}, "no 'val'"),
        ([1], "no 'train'"),
        (changed("train", pidxs=[1, 2]), r"train differ in length .*qidxs 3, pidxs 2\)"),
        (changed("val", cluster=[1]), r"val differ in length \(cids 3, cluster 1"),
        (changed("train", qidxs=[0, 0, 5]), "index 5 is outside of 5 images"),
        (changed("train", qidxs=[0, -1, 3]), "index -1 is outside"),
        (changed("train", qidxs=[0, 0.5, 3]), "'0.5' is no whole number"),
        (changed("train", qidxs=[0, float("nan"), 3]), "'nan' is no whole number"),
        (changed("train", pidxs=7), "indices are no list"),
        (changed("train", cids="abcde"), "ids are no list"),
        (changed("train", cids=["a/b", *IDS[1:5]]), "no file name"),
        (changed("train", cids=["abcd.." + "x" * 4 + "..", *IDS[1:5]]), "leads outside"),
        (changed("train", cids=["f" * 32, *IDS[1:5]]), "1 of 8 images are missing"),
        (changed("train", cids=[IDS[1], *IDS[1:5]]), "more than once"),
        (changed("train", qidxs=[0], pidxs=[1]), "5 images and 3 pairs, but here are 5 and 1"),
        (changed("train", qidxs={0: print}), "only plain values"),
    ],
)
def test_damage_is_told_in_one_line(tmp_path, found, message):
    put(tmp_path, found)
    with pytest.raises(InputError, match=message) as error:
        sfm120k.sfm120k(str(tmp_path))
    assert str(tmp_path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_files_and_torn_ones(tmp_path):
    with pytest.raises(InputError, match=r"there is no retrieval-SfM-120k\.pkl"):
        sfm120k.sfm120k(str(tmp_path))
    (tmp_path / sfm120k.LISTS).write_bytes(pickle.dumps(ground_truth())[:-9])
    with pytest.raises(InputError, match="there is no ims"):
        sfm120k.sfm120k(str(tmp_path))
    (tmp_path / "ims").mkdir()
    with pytest.raises(InputError, match="damaged"):
        sfm120k.sfm120k(str(tmp_path))
