import json
import os
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.datasets.digits import digits
from mltool.errors import InputError
from mltool.files.lists import csv_list as module
from mltool.files.lists.csv_list import read_csv, write_csv
from mltool.files.lists.folder import read_folder
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray

TEXT = st.text(
    st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=8
)


@pytest.fixture
def csv_file(tmp_path):
    def write(text):
        path = tmp_path / "list.csv"
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return str(path)

    return write


def test_paths_names_and_labels(csv_file, tmp_path):
    images = read_csv(csv_file("path,label\na/1.jpg,cat\n/abs/2.jpg,dog\n../3.jpg,\n"))
    assert images.names.tolist() == [b"a/1.jpg", b"/abs/2.jpg", b"../3.jpg"]
    assert list(images.paths) == [f"{tmp_path}/a/1.jpg", "/abs/2.jpg", f"{tmp_path}/../3.jpg"]
    assert images.labels.tolist() == [0, 1, -1]
    assert images.label_names == ("cat", "dog")


def test_given_names_and_the_root_that_they_are_below(csv_file, tmp_path):
    images = read_csv(csv_file("path,name\nphotos/a/1.jpg,a/1.jpg\nphotos/2.jpg,2.jpg\n"))
    assert images.names.tolist() == [b"a/1.jpg", b"2.jpg"]
    assert images.root == str(tmp_path / "photos")
    assert images.labels.tolist() == [-1, -1]
    images = read_csv(csv_file("path,name\nphotos/a/1.jpg,a/1.jpg\nphotos/2.jpg,other.jpg\n"))
    assert images.root == ""
    assert read_csv(csv_file("path,name\na.jpg,\nb.jpg,x\n")).names.tolist() == [b"a.jpg", b"x"]
    assert read_csv(csv_file("path\na/1.jpg\n")).root == str(tmp_path)


def test_known_columns_have_their_type(csv_file):
    images = read_csv(
        csv_file(
            "path,split,is_query,is_gallery,x_1,weight,cluster,confidence\n"
            "a,1,1,TRUE,0.5,2,3,0.25\nb,2,,false,,,,\n"
        )
    )
    columns = images.columns
    assert columns["split"].tolist() == [b"1", b"2"]
    assert columns["is_query"].tolist() == [True, False]
    assert columns["is_gallery"].tolist() == [True, False]
    assert columns["cluster"].tolist() == [3, -1]
    assert columns["cluster"].dtype == np.int64
    for key, first in (("x_1", 0.5), ("weight", 2), ("confidence", 0.25)):
        assert columns[key].dtype == np.float64
        assert columns[key][0] == first
        assert np.isnan(columns[key][1])


def test_other_columns_are_carried_along(csv_file):
    images = read_csv(csv_file("path,count,size,code,text,empty\na,1,0.5,007,x,\nb,-2,3e2,8,,\n"))
    assert images.columns["count"].tolist() == [1, -2]
    assert images.columns["size"].tolist() == [0.5, 300]
    assert images.columns["code"].tolist() == [b"007", b"8"]
    assert images.columns["text"].tolist() == [b"x", b""]
    assert images.columns["empty"].tolist() == [b"", b""]


def test_columns_without_a_usable_name_are_left_out(csv_file, caplog):
    images = read_csv(csv_file(",path,w/h\n0,a,1\n1,b,2\n"))
    assert images.columns == {}
    assert "column 'w/h' is left out" in caplog.text
    assert "column '' is left out" in caplog.text


def test_spreadsheet_habits(csv_file):
    images = read_csv(csv_file(b"\xef\xbb\xbfpath, label\r\na,1\r\n\r\nb,2\r\n"))
    assert images.names.tolist() == [b"a", b"b"]
    assert images.label_names == ("1", "2")


def test_quoted_cells(csv_file):
    images = read_csv(csv_file('path,label\n"a,1\n.jpg","say ""cat"""\n'))
    assert images.names.tolist() == [b"a,1\n.jpg"]
    assert images.label_names == ('say "cat"',)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no column `path` .* holds nothing"),
        ("a.jpg\nb.jpg\n", "no column `path` .* holds a.jpg"),
        ("path;label\na;b\n", "no column `path`"),
        ("path,label,label\n", "names a column twice"),
        ("path\n", "lists no images"),
        ("path,label\na,b\nc\n", "line 3: 1 cells, but the header has 2"),
        ('path,label\n"a\nb",c\nd,e,f\n', "line 4: 3 cells"),
        ("path,label\na,b\n,c\n", "line 3: the path is empty"),
        ('path\n"a\n', "line 2: unexpected end"),
        ("path\na\nb\na\n", r"1 names stand more than once \(a\)"),
        ("path,name\na,x\nb,x\n", r"more than once \(x\)"),
        (b"path,label\na,b\na,\xe9\n", "line 3: label is not UTF-8"),
        (b"path\n\xe9.jpg\n", "line 2: path is not UTF-8"),
        (b"path\na\0b\n", "line 2: path holds a NUL"),
        ("path\ndigits\0" + "5\n", "line 2: path holds a NUL"),
        ("path,weight\na,1\nb,heavy\n", "line 3: weight is 'heavy', not a number"),
        ("path,is_query\na,yes\n", "line 2: is_query is 'yes', not 0 or 1"),
        ("path,cluster\na,1.5\n", "line 2: cluster is '1.5', not a whole number"),
        ("path,cluster\na,99999999999999999999\n", "line 2: cluster is"),
        ("path,x\na," + "y" * 5000 + "\n", "line 2: x holds more than 4,096 bytes"),
        ("path\ndigits::digits/9/0000\n", "digits holds no digits/9/0000"),
        ("path\nmissing.h5::a\n", r"missing\.h5"),
        ("path\na\n".encode("utf-16"), "no column `path`"),
    ],
)
def test_bad_lists(csv_file, text, message):
    with pytest.raises(InputError, match=message) as caught:
        read_csv(csv_file(text))
    assert "list.csv" in str(caught.value)


def test_a_missing_list(tmp_path):
    with pytest.raises(InputError, match=r"nowhere\.csv"):
        read_csv(str(tmp_path / "nowhere.csv"))


def test_a_path_may_be_any_bytes_if_the_file_is_there(csv_file, tmp_path):
    raw = os.fsencode(tmp_path) + b"/\xe9.jpg"
    with open(raw, "wb"):
        pass
    images = read_csv(csv_file(b"path,label\n\xe9.jpg,a\n"))
    assert images.names.tolist() == [b"%E9.jpg"]
    assert os.fsencode(images.paths[0]) == raw
    write_csv(str(tmp_path / "again.csv"), images)
    assert list(read_csv(str(tmp_path / "again.csv")).paths) == list(images.paths)


def test_many_blocks_give_the_same(csv_file, monkeypatch):
    text = "path,label,n\n" + "".join(f"i/{n}.jpg,{n % 3},{n}\n" for n in range(20))
    whole = read_csv(csv_file(text))
    monkeypatch.setattr(module, "BLOCK", 3)
    parts = read_csv(csv_file(text))
    assert parts.digest() == whole.digest()
    assert list(parts.paths) == list(whole.paths)
    assert parts.columns["n"].tolist() == list(range(20))
    with pytest.raises(InputError, match="line 22: 1 cells"):
        read_csv(csv_file(text + "x\n"))


def test_a_written_list_leads_to_the_same_files(tmp_path, monkeypatch):
    (tmp_path / "photos/cat").mkdir(parents=True)
    (tmp_path / "photos/cat/1.jpg").touch()
    (tmp_path / "lists").mkdir()
    (tmp_path / "far/away").mkdir(parents=True)
    (tmp_path / "linked").symlink_to(tmp_path / "far/away")
    images = read_folder(str(tmp_path / "photos"))
    for folder in ("", "lists/", "photos/cat/", "linked/"):
        path = f"{tmp_path}/{folder}list.csv"
        write_csv(path, images)
        again = read_csv(path)
        assert os.path.samefile(again.paths[0], images.paths[0])
        assert again.names.tolist() == [b"cat/1.jpg"]
        assert again.label_names == ("cat",)
        assert again.root == str(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    write_csv("here.csv", images)
    assert (tmp_path / "here.csv").read_text() == (
        "path,name,label\nphotos/cat/1.jpg,cat/1.jpg,cat\n"
    )


def test_linked_image_folders_stay_links(tmp_path):
    (tmp_path / "disk/cat").mkdir(parents=True)
    (tmp_path / "disk/cat/1.jpg").touch()
    (tmp_path / "data").mkdir()
    (tmp_path / "data/train").symlink_to(tmp_path / "disk")
    images = read_folder(str(tmp_path / "data"))
    write_csv(tmp_path / "list.csv", images)
    assert "\ndata/train/cat/1.jpg,train/cat/1.jpg,cat\n" in (tmp_path / "list.csv").read_text()
    assert read_csv(tmp_path / "list.csv").root == images.root


def test_a_list_below_a_linked_folder_may_move_with_its_images(tmp_path):
    (tmp_path / "disk/photos/cat").mkdir(parents=True)
    (tmp_path / "disk/photos/cat/1.jpg").touch()
    (tmp_path / "disk/lists").mkdir()
    (tmp_path / "data").symlink_to(tmp_path / "disk")
    write_csv(tmp_path / "data/lists/a.csv", read_folder(str(tmp_path / "data/photos")))
    written = (tmp_path / "disk/lists/a.csv").read_text()
    assert written.splitlines()[1] == "../photos/cat/1.jpg,cat/1.jpg,cat"


@settings(max_examples=40, deadline=None)
@given(names=st.lists(TEXT, min_size=1, max_size=6, unique=True), labels=st.lists(TEXT, min_size=6))
def test_names_and_labels_survive(tmp_path_factory, names, labels):
    folder = tmp_path_factory.mktemp("csv")
    texts = labels[: len(names)]
    label_names = tuple(dict.fromkeys(texts))
    images = Manifest(
        names=StringArray.from_texts(names).to_array(),
        paths=StringArray.from_texts(f"/data/{row}.jpg" for row in range(len(names))),
        labels=np.array([label_names.index(text) for text in texts]),
        label_names=label_names,
        columns={},
        root="",
    )
    path = str(folder / "list.csv")
    write_csv(path, images)
    again = read_csv(path)
    assert again.digest() == images.digest()
    assert again.names.tolist() == images.names.tolist()


def test_columns_survive(tmp_path):
    columns = {
        "split": np.array([b"train", b""]),
        "is_query": np.array([True, False]),
        "weight": np.array([0.1, np.nan]),
        "confidence": np.array([0.1, 1 / 3], np.float32),
        "cluster": np.array([2, -1]),
        "note": np.array(["é".encode(), b'a,"b"\n']),
    }
    images = replace(digits().take(np.arange(2)), columns=columns)
    path = str(tmp_path / "list.csv")
    write_csv(path, images)
    again = read_csv(path).columns
    assert list(again) == list(columns)
    for key in columns:
        np.testing.assert_array_equal(again[key].astype(columns[key].dtype), columns[key])
    assert "0.1\n" not in (tmp_path / "list.csv").read_text()
    assert ",0.1,0.1,2," in (tmp_path / "list.csv").read_text()


def test_further_columns_and_history(tmp_path):
    path = tmp_path / "pseudo.csv"
    images = digits().take(np.arange(3))
    step = {"program": "mltool", "command": "pseudolabel"}
    write_csv(path, images, columns={"confidence": np.array([1, 0.5, 0])}, history=(step,))
    assert path.read_text().splitlines()[:2] == [
        "path,name,label,split,confidence",
        "digits::digits/0/0000,digits/0/0000,0,train,1.0",
    ]
    assert json.loads((tmp_path / "pseudo.csv.history.json").read_text())["history"] == [step]
    again = read_csv(path)
    assert list(again.paths) == ["digits\0" + "0", "digits\0" + "1", "digits\0" + "2"]
    assert again.root == ""


def test_a_file_named_like_a_pack_member_is_a_file(csv_file, tmp_path):
    (tmp_path / "a::b.jpg").touch()
    images = read_csv(csv_file("path\na::b.jpg\n"))
    assert images.names.tolist() == [b"a::b.jpg"]
    assert images.paths[0] == str(tmp_path / "a::b.jpg")
