import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from mltool.datasets import omniglot, open_data
from mltool.datasets.digits import digits
from mltool.errors import InputError, UsageError
from mltool.files import images, pack_writer
from mltool.files.lists.csv_list import write_csv
from mltool.files.lists.folder import read_folder


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A current folder with `photos`, `list.csv` (with splits), `pack.h5` and a small Omniglot."""
    monkeypatch.chdir(tmp_path)
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        os.makedirs(os.path.dirname(f"photos/{name}"), exist_ok=True)
        Image.new("RGB", (4, 4)).save(f"photos/{name}")
    photos = read_folder("photos")
    split = np.array([b"train", b"test", b"train"])
    write_csv("list.csv", photos, columns={"split": split})
    pack_writer.write("pack.h5", photos)
    monkeypatch.setattr(omniglot, "COUNTS", {"background": (1, 1), "evaluation": (1, 1)})
    for name in ("background/A/c1/1.png", "evaluation/B/c1/1.png"):
        os.makedirs(os.path.dirname(f"glyphs:1/{name}"), exist_ok=True)
        Image.new("1", (4, 4)).save(f"glyphs:1/{name}")
    return tmp_path


def names(*args, **options):
    return [name.decode() for name in open_data(list(args), **options).names.tolist()]


def test_digits():
    everything = open_data(["digits"])
    assert everything.digest() == digits().digest()
    assert str(everything.summary()).startswith("1,797 images, 10 classes (174 to 183 each")
    train, test = open_data(["digits:train"]), open_data(["digits:test"])
    assert train.label_names == ("0", "1", "2", "3", "4")
    assert test.label_names == ("5", "6", "7", "8", "9")
    assert test.labels.min() == 0
    assert len(train) + len(test) == 1797
    assert open_data(["digits"], split="train").digest() == train.digest()


@pytest.mark.parametrize(
    "text", ["photos", "photos/", "./photos", "list.csv", "pack.h5", "list.csv:all"]
)
def test_paths(place, text):
    found = open_data([text])
    assert found.names.tolist() == [b"cat/1.png", b"cat/2.png", b"dog/1.png"]
    assert found.label_names == ("cat", "dog")
    for path in found.paths:
        assert images.load(path).shape == (4, 4, 3)


def test_image_files(place):
    assert names("photos/cat/1.png", "photos/dog/1.png") == ["photos/cat/1.png", "photos/dog/1.png"]


def test_splits(place):
    assert names("list.csv:train") == ["cat/1.png", "dog/1.png"]
    assert names("list.csv", split="test") == ["cat/2.png"]
    assert names("list.csv:test", split="train") == ["cat/2.png"]
    assert len(names("list.csv", split="all", need_split=True)) == 3
    assert len(names("photos", need_split=True)) == 3
    assert len(names("list.csv:train", need_split=True)) == 2
    with pytest.raises(UsageError, match=r"list\.csv has the splits test, train: choose one"):
        open_data(["list.csv"], need_split=True)
    with pytest.raises(UsageError, match="no split 'trian'; did you mean train"):
        open_data(["list.csv:trian"])
    with pytest.raises(UsageError, match="--split train: the data have no splits"):
        open_data(["photos"], split="train")
    assert len(names("photos", split="all")) == 3


def test_benchmarks_with_a_root(place):
    assert names("omniglot:glyphs:1") == ["background/A/c1/1.png", "evaluation/B/c1/1.png"]
    assert names("omniglot:glyphs:1:train") == ["background/A/c1/1.png"]
    assert names(f"omniglot:{place}/glyphs:1", split="test") == ["evaluation/B/c1/1.png"]
    os.mkdir("glyphs")  # the longer root counts
    assert len(names("omniglot:glyphs:1")) == 2
    with pytest.raises(UsageError, match="background, evaluation"):
        open_data(["omniglot:glyphs:1"], need_split=True)


def test_an_existing_path_wins_over_a_benchmark(place):
    os.rename("photos", "digits")
    assert len(open_data(["digits"])) == 3


@pytest.mark.parametrize(
    ("text", "error", "message"),
    [
        ("digts", UsageError, r"digts is neither a path nor a benchmark; did you mean digits\?"),
        ("omniglott:glyphs:1", UsageError, "did you mean omniglot"),
        ("omniglot", UsageError, "omniglot needs its folder, as in omniglot:/data/omniglot"),
        ("omniglot:", UsageError, "omniglot needs its folder"),
        ("omniglot:nowhere", InputError, "there is no folder nowhere"),
        ("omniglot:nowhere:train", InputError, "there is no folder nowhere; give that of omniglot"),
        ("digits:tset", UsageError, "did you mean test"),
        ("some/where", InputError, "there is no file or folder some/where"),
        ("list2.csv", InputError, "there is no file or folder list2.csv"),
        ("", UsageError, "neither a path nor a benchmark"),
        ("bad\x1b[31m", UsageError, r"bad\\x1b\[31m is neither"),
    ],
)
def test_what_is_not_there(place, text, error, message):
    with pytest.raises(error, match=message):
        open_data([text])


def test_several_data_are_joined(place):
    both = open_data(["photos", "digits:train"])
    assert len(both) == 3 + 901
    assert both.label_names[:3] == ("cat", "dog", "0")
    assert both.root == ""
    assert len(open_data(["photos", "photos", "list.csv"])) == 3
    assert len(open_data(["photos", "list.csv"], split="train")) == 3
    with pytest.raises(InputError, match="3 names stand for different files"):
        open_data(["photos", "pack.h5"])


def standard_input(monkeypatch, data):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))


def test_standard_input(place, monkeypatch):
    standard_input(monkeypatch, b"photos/cat/1.png\nphotos/dog/1.png\n")
    found = open_data(["-"])
    assert found.names.tolist() == [b"photos/cat/1.png", b"photos/dog/1.png"]
    assert found.labels.tolist() == [-1, -1]
    standard_input(monkeypatch, b"cat/1.png\n")
    found = open_data(["-"], root="photos", labels="list.csv")
    assert found.label_names == ("cat",)
    assert images.load(found.paths[0]).shape == (4, 4, 3)
    with pytest.raises(UsageError, match="only once"):
        open_data(["-", "-"])
    with pytest.raises(UsageError, match="--root is for paths on standard input"):
        open_data(["photos"], root="photos")


def test_labels_classes_and_limit(place):
    write_csv("other.csv", open_data(["photos"]).take(np.array([0, 2])))
    found = open_data(["photos"], labels="other.csv")
    assert found.labels.tolist() == [0, -1, 1]
    assert open_data(["digits"], classes="3-4,9").label_names == ("3", "4", "9")
    assert open_data(["digits"], classes="5-9", limit=2).label_names == ("5", "6")
    assert len(open_data(["digits"], limit=10)) == 10
    with pytest.raises(UsageError, match="no class 'x'"):
        open_data(["digits"], classes="x")
    with pytest.raises(InputError, match=r"no image is left of list\.csv"):
        open_data(["list.csv:test"], labels="photos", classes="dog")


def test_no_heavy_import():
    code = (
        "import sys; from mltool.datasets import open_data; open_data(['digits']);"
        "print(sorted({'torch', 'sklearn', 'scipy', 'PIL'} & set(sys.modules)))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"
