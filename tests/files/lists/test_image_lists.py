import io
import os

import h5py
import numpy as np
import pytest
from PIL import Image

from mltool.datasets.digits import digits
from mltool.errors import InputError
from mltool.files import images, locations, pack, pack_writer
from mltool.files.embeddings import Embeddings, write
from mltool.files.lists.folder import read_folder
from mltool.files.lists.image_lists import read, read_lines
from mltool.files.lists.selection import join


@pytest.fixture
def photos(tmp_path):
    for name in ("cat/1.png", "cat/2.png", "dog/1.png"):
        path = tmp_path / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (4, 4), (len(name), int(name[-5]), 0)).save(path)
    return read_folder(str(tmp_path / "photos"))


def embeddings_of(manifest, folder):
    return Embeddings(
        names=manifest.names,
        vectors=np.zeros((len(manifest), 2), np.float32),
        labels=manifest.labels,
        label_names=manifest.label_names,
        columns=manifest.columns
        | locations.path_column(manifest.names, manifest.paths, str(folder)),
        root=manifest.root,
    )


def same_images(one, other):
    assert one.names.tolist() == other.names.tolist()
    assert one.digest() == other.digest()
    for row in range(len(one)):
        np.testing.assert_array_equal(images.load(one.paths[row]), images.load(other.paths[row]))


def test_lines_are_names_and_paths(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    lines = io.BytesIO(b"a/1.jpg\n\n/abs/2.jpg\r\n\xff.jpg\n./ x")
    found = read_lines(lines, source="standard input")
    assert found.names.tolist() == [b"a/1.jpg", b"/abs/2.jpg", b"%FF.jpg", b"./ x"]
    here = os.fsencode(tmp_path)
    expected = [here + b"/a/1.jpg", b"/abs/2.jpg", here + b"/\xff.jpg", here + b"/./ x"]
    assert [os.fsencode(path) for path in found.paths] == expected
    assert found.labels.tolist() == [-1] * 4
    assert found.label_names == ()


def test_lines_below_a_root():
    found = read_lines([b"a.jpg\n"], root="/data/photos/", source="standard input")
    assert list(found.paths) == ["/data/photos/a.jpg"]
    assert found.root == "/data/photos"


def test_bad_lines():
    with pytest.raises(InputError, match="standard input names no images"):
        read_lines([b"\n", b"\r\n"], source="standard input")
    with pytest.raises(InputError, match=r"standard input: 1 names .* \(a\)"):
        read_lines([b"a\n", b"b\n", b"a"], source="standard input")
    with pytest.raises(InputError, match="NUL"):
        read_lines([b"digits\0" + b"5\n"], source="standard input")


def test_a_single_image(photos, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = read("photos/cat/1.png")
    assert found.names.tolist() == [b"photos/cat/1.png"]
    assert images.load(found.paths[0]).shape == (4, 4, 3)


def test_what_is_no_list(tmp_path):
    (tmp_path / "notes.txt").write_text("a.jpg\n")
    with pytest.raises(InputError, match=r"notes\.txt is no image list"):
        read(str(tmp_path / "notes.txt"))
    with pytest.raises(InputError, match="missing"):
        read(str(tmp_path / "missing"))
    with h5py.File(tmp_path / "foreign.h5", "w") as file:
        file["x"] = [1]
    with pytest.raises(InputError, match="foreign data"):
        read(str(tmp_path / "foreign.h5"))


def test_embeddings_find_their_images(photos, tmp_path):
    (tmp_path / "out").mkdir()
    path = tmp_path / "out/emb.h5"
    write(path, embeddings_of(photos, tmp_path / "out"))
    found = read(str(path))
    same_images(found, photos)
    assert found.root == photos.root
    assert found.columns == {}


def test_embeddings_moved_with_their_images(photos, tmp_path):
    write(tmp_path / "emb.h5", embeddings_of(photos, tmp_path))
    (tmp_path / "new").mkdir()
    for name in ("emb.h5", "photos"):
        (tmp_path / name).rename(tmp_path / "new" / name)
    found = read(str(tmp_path / "new/emb.h5"))
    assert images.load(found.paths[0]).shape == (4, 4, 3)


def test_embeddings_of_digits_of_a_pack_and_of_both(photos, tmp_path):
    some = digits().take(np.array([5, 3]))
    pack_writer.write(tmp_path / "images.h5", photos)
    packed = pack.read(tmp_path / "images.h5")
    for name, manifest in (("d", some), ("p", packed), ("b", join([some, packed]))):
        path = tmp_path / f"{name}.h5"
        write(path, embeddings_of(manifest, tmp_path))
        found = read(str(path))
        same_images(found, manifest)
        assert list(found.paths) == list(manifest.paths)
        assert found.root == manifest.root


def test_embeddings_without_a_root_look_next_to_the_file(photos, tmp_path):
    path = tmp_path / "photos/emb.h5"
    write(path, Embeddings(photos.names, np.zeros((3, 2), np.float32)))
    assert list(read(str(path)).paths) == list(photos.paths)


def test_a_pack_that_lacks_the_images(photos, tmp_path):
    pack_writer.write(tmp_path / "images.h5", photos)
    packed = pack.read(tmp_path / "images.h5")
    write(tmp_path / "emb.h5", embeddings_of(packed, tmp_path))
    pack_writer.write(tmp_path / "other.h5", photos.take(np.array([0])))
    (tmp_path / "other.h5").replace(tmp_path / "images.h5")
    locations._names_in.cache_clear()
    with pytest.raises(InputError, match=r"images\.h5 holds no cat/2\.png, dog/1\.png"):
        read(str(tmp_path / "emb.h5"))
