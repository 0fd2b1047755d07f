import hashlib
import io
import multiprocessing
import os
import tracemalloc

import h5py
import numpy as np
import pytest
from PIL import Image

from mltool.datasets.digits import digits
from mltool.errors import InputError, ResourceError
from mltool.files import images, pack, pack_writer
from mltool.files.history import read as read_history
from mltool.files.lists.folder import read_folder
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray

COLOURS = ("red", "lime", "blue", "white", "black")


@pytest.fixture
def photos(tmp_path):
    """Five images of two classes, of different sizes and formats."""
    for row, colour in enumerate(COLOURS):
        path = tmp_path / "photos" / f"class{row % 2}" / f"{colour}.{'png' if row % 2 else 'jpg'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40 + 50 * row, 30 + 40 * row), colour).save(path)
    return read_folder(str(tmp_path / "photos"))


@pytest.fixture
def packed(photos, tmp_path):
    path = tmp_path / "images.h5"
    pack_writer.write(path, photos)
    return path


def test_the_bytes_are_kept(photos, packed):
    found = pack.read(packed)
    assert found.digest() == photos.digest()
    assert found.label_names == ("class0", "class1")
    assert found.root == str(packed)
    read_row = pack.open_bytes(packed)
    for row, path in enumerate(photos.paths):
        with open(path, "rb") as file:
            data = file.read()
        assert read_row(row) == data == images.read_bytes(found.paths[row])
        np.testing.assert_array_equal(images.load(found.paths[row]), images.load(path))


def test_any_hdf5_program_finds_the_images(photos, packed):
    with h5py.File(packed) as file:
        offsets = file["offsets"][:]
        for row, name in enumerate(file["names"].asstr()):
            data = file["images"][offsets[row] : offsets[row + 1]].tobytes()
            assert Image.open(io.BytesIO(data)).size == images.load(photos.paths[row]).shape[1::-1]
            assert name == photos.names[row].decode()
            assert file["sha256"][row].tobytes() == hashlib.sha256(data).digest()
        assert file.attrs["format"] == b"mltool-pack"
        assert file.attrs["root"] == b"photos"


def test_what_is_returned(photos, tmp_path):
    result = pack_writer.write(tmp_path / "images.h5", photos)
    assert result.images == 5
    assert result.bytes == sum(os.path.getsize(path) for path in photos.paths)
    assert result.skipped == ()
    with h5py.File(tmp_path / "images.h5") as file:
        assert file.attrs["digest"].decode() == result.digest


@pytest.mark.parametrize("workers", [1, 3])
def test_large_images_are_shrunk_and_small_ones_kept(photos, tmp_path, workers):
    pack_writer.write(tmp_path / "small.h5", photos, size=70, workers=workers)
    found = pack.read(tmp_path / "small.h5")
    for row, path in enumerate(photos.paths):
        before, after = images.load(path), images.load(found.paths[row])
        side = min(before.shape[:2])
        if side <= 70:
            with open(path, "rb") as file:
                assert images.read_bytes(found.paths[row]) == file.read()
            continue
        assert min(after.shape[:2]) == 70
        assert after.shape[1] == round(before.shape[1] * 70 / side)
        assert images.read_bytes(found.paths[row]).startswith(b"\xff\xd8")
        np.testing.assert_allclose(after.mean((0, 1)), before.mean((0, 1)), atol=3)


def test_turned_images_stay_upright(tmp_path):
    (tmp_path / "photos").mkdir()
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (90, 60)).save(tmp_path / "photos/turned.jpg", exif=exif)
    photos = read_folder(str(tmp_path / "photos"))
    for size, shape in ((None, (90, 60)), (20, (30, 20))):
        path = tmp_path / f"{size}.h5"
        pack_writer.write(path, photos, size=size)
        assert images.load(pack.read(path).paths[0]).shape[:2] == shape


def test_equal_input_gives_equal_bytes(photos, tmp_path):
    for name, workers in (("one.h5", 1), ("other.h5", 2)):
        pack_writer.write(tmp_path / name, photos, size=50, workers=workers)
    assert (tmp_path / "one.h5").read_bytes() == (tmp_path / "other.h5").read_bytes()


def test_digits_columns_and_history(tmp_path):
    path = tmp_path / "digits.h5"
    step = {"program": "mltool", "command": "pack"}
    pack_writer.write(path, digits(), history=(step,))
    found = pack.read(path)
    assert found.digest() == digits().digest()
    assert found.columns["split"].tolist() == digits().columns["split"].tolist()
    for row in (0, 1796):
        np.testing.assert_array_equal(
            images.load(found.paths[row]), images.load(digits().paths[row])
        )
    pack.verify(path, full=True)
    assert read_history(path) == (step,)


def test_columns_of_every_type(photos, tmp_path):
    columns = {
        "note": np.array([b"a", "é".encode(), b"", b"d", b"e"]),
        "is_query": np.array([True, False, True, False, True]),
        "cluster": np.arange(5),
        "weight": np.array([0.5, np.nan, 1, 2, 3]),
    }
    manifest = Manifest(photos.names, photos.paths, np.full(5, -1), (), columns, "")
    pack_writer.write(tmp_path / "images.h5", manifest)
    pack.verify(tmp_path / "images.h5", full=True)
    found = pack.read(tmp_path / "images.h5")
    assert found.label_names == ()
    assert found.labels.tolist() == [-1] * 5
    assert set(found.columns) == set(columns)
    for key, column in columns.items():
        assert found.columns[key].dtype.kind == column.dtype.kind
        np.testing.assert_array_equal(found.columns[key], column)


def test_a_bad_image_ends_the_work_or_is_left_out(photos, tmp_path):
    bad = photos.paths[2]
    with open(bad, "r+b") as file:
        file.truncate(os.path.getsize(bad) // 2)
    out = tmp_path / "images.h5"
    out.write_text("old")
    with pytest.raises(InputError, match=os.path.basename(bad)):
        pack_writer.write(out, photos)
    assert out.read_text() == "old"
    assert sorted(os.listdir(tmp_path)) == ["images.h5", "photos"]
    result = pack_writer.write(out, photos, on_bad_image="skip")
    assert result.images == 4
    assert len(result.skipped) == 1
    assert bad in result.skipped[0]
    found = pack.read(out)
    assert found.names.tolist() == np.delete(photos.names, 2).tolist()
    pack.verify(out, full=True)
    with open(photos.paths[4], "rb") as file:
        assert images.read_bytes(found.paths[3]) == file.read()


def test_no_image_at_all(tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/empty.jpg").touch()
    with pytest.raises(InputError, match="none of the 1 images can be read"):
        pack_writer.write(
            tmp_path / "x.h5", read_folder(str(tmp_path / "photos")), on_bad_image="skip"
        )
    with pytest.raises(ResourceError, match="nowhere"):
        pack_writer.write(tmp_path / "nowhere/x.h5", digits().take(np.arange(2)))
    assert os.listdir(tmp_path) == ["photos"]


def test_rows_outside(packed):
    read_row = pack.open_bytes(packed)
    for row in (-1, 5):
        with pytest.raises(InputError, match=f"has no image {row}, only 5"):
            read_row(row)


def test_an_open_pack_keeps_to_its_file(photos, packed):
    read_row = pack.open_bytes(packed)
    first = read_row(0)
    pack_writer.write(packed, photos.take(np.array([3, 4])))
    assert read_row(0) == first
    assert pack.open_bytes(packed)(0) != first


def read_in_child(read_row, rows, queue):
    queue.put([hashlib.sha256(read_row(row)).hexdigest() for row in rows])


def test_forked_workers_share_an_open_pack(tmp_path):
    path = tmp_path / "digits.h5"
    pack_writer.write(path, digits())
    read_row = pack.open_bytes(path)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    rows = [*range(0, 1797, 7)] * 3
    children = [
        context.Process(target=read_in_child, args=(read_row, rows, queue)) for _ in range(3)
    ]
    for child in children:
        child.start()
    found = [queue.get(timeout=30) for _ in children]
    for child in children:
        child.join()
    expected = [hashlib.sha256(read_row(row)).hexdigest() for row in rows]
    assert found == [expected] * 3


def test_descriptors_are_closed(packed):
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(20):
        pack.open_bytes(packed)(0)
    assert len(os.listdir("/proc/self/fd")) == before


def test_every_flipped_bit_is_found(packed, tmp_path):
    pack.verify(packed, full=True)
    whole = packed.read_bytes()
    rng = np.random.default_rng(0)
    damaged = tmp_path / "damaged.h5"
    for place in rng.choice(len(whole), 150, replace=False).tolist():
        data = bytearray(whole)
        data[place] ^= 1 << int(rng.integers(8))
        damaged.write_bytes(data)
        with pytest.raises(InputError, match="damaged"):
            pack.verify(damaged, full=True)


def test_a_damaged_image_is_named(packed, photos):
    whole = packed.read_bytes()
    with open(photos.paths[1], "rb") as file:
        place = whole.index(file.read()) + 20
    with open(packed, "r+b") as file:
        file.seek(place)
        file.write(bytes([whole[place] ^ 1]))
    pack.verify(packed, full=False)
    with pytest.raises(InputError, match=rf"1 images are damaged \({photos.names[1].decode()}\)"):
        pack.verify(packed, full=True)


@pytest.mark.parametrize("tenths", range(10))
def test_truncated_packs(packed, tenths):
    os.truncate(packed, os.path.getsize(packed) * tenths // 10)
    for action in (pack.read, pack.open_bytes, pack.read_names):
        with pytest.raises(InputError, match=r"images\.h5"):
            action(packed)


def rewrite(path, **datasets):
    with h5py.File(path, "r+") as file:
        for name, value in datasets.items():
            del file[name]
            if value is not None:
                file[name] = value


@pytest.mark.parametrize(
    "datasets",
    [
        {"offsets": [0, 5, 4, 8, 9, 10]},
        {"offsets": [0, -5, 4, 8, 9, 10]},
        {"offsets": [0, 1, 2, 3, 4, 2**62]},
        {"offsets": [0]},
        {"offsets": None},
        {"names": None},
        {"names": np.array([b"a", b"b"])},
        {"names": np.array([b"a", b"a", b"c", b"d", b"e"])},
        {"names": np.array([b"\xff", b"a", b"c", b"d", b"e"])},
        {"names": np.arange(5)},
        {"labels": np.array([0, 1, 2, 0, 0])},
        {"labels": np.array([0, 1, -2, 0, 0])},
        {"labels": np.zeros(4, np.int64)},
        {"label_names": np.array([b"x", b"\xff"])},
        {"sha256": np.zeros((4, 32), np.uint8)},
        {"images": np.zeros(10)},
        {"images": None},
    ],
)
def test_parts_that_do_not_fit(packed, datasets):
    rewrite(packed, **datasets)
    with pytest.raises(InputError, match=r"images\.h5"):
        pack.read(packed)


@pytest.mark.parametrize("row", [0, 2, 5])
def test_offsets_that_go_back(packed, row):
    with h5py.File(packed, "r+") as file:
        file["offsets"][row] = -3 if row == 0 else file["offsets"][row - 1] - 1
    with pytest.raises(InputError, match="do not lie where it says"):
        pack.open_bytes(packed)


def test_changed_labels_are_found_at_once(packed):
    rewrite(packed, labels=np.array([1, 1, 1, 1, 1]))
    pack.read(packed)
    with pytest.raises(InputError, match="do not fit its digest"):
        pack.verify(packed, full=False)


def test_hostile_images_are_refused(packed, tmp_path):
    secret = tmp_path / "secret"
    secret.write_bytes(b"password")
    with h5py.File(packed, "r+") as file:
        size = len(file["images"])
        del file["images"]
        external = [(str(secret), 0, size)]
        file.create_dataset("images", (size,), np.uint8, external=external)
    for action in (pack.read, pack.open_bytes):
        with pytest.raises(InputError, match="other files"):
            action(packed)
    with h5py.File(packed, "r+") as file:
        del file["images"]
        file["images"] = h5py.ExternalLink(str(secret), "x")
    with pytest.raises(InputError, match="link"):
        pack.open_bytes(packed)


def test_chunked_images_are_refused(packed):
    with h5py.File(packed, "r+") as file:
        data = file["images"][:]
        del file["images"]
        file.create_dataset("images", data=data, chunks=(100,), compression="gzip")
    with pytest.raises(InputError, match="do not lie where it says"):
        pack.open_bytes(packed)


def test_newer_and_foreign_files(packed, tmp_path):
    with h5py.File(packed, "r+") as file:
        file.attrs["format_version"] = 2
    with pytest.raises(InputError, match="newer mltool"):
        pack.read(packed)
    with h5py.File(packed, "r+") as file:
        file.attrs["format"] = np.bytes_("mltool-index")
    with pytest.raises(InputError, match="mltool-pack file is needed"):
        pack.open_bytes(packed)


def test_memory_does_not_grow_with_the_images(tmp_path):
    """Packing 200 photos of 300 kB holds a few of them at a time."""
    noise = np.random.default_rng(0).integers(256, size=(320, 320, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "noise.png")
    names = [f"{row:03d}" for row in range(200)]
    manifest = Manifest(
        names=StringArray.from_texts(names).to_array(),
        paths=StringArray.from_texts([str(tmp_path / "noise.png")] * len(names)),
        labels=np.full(len(names), -1),
        label_names=(),
        columns={},
        root="",
    )
    tracemalloc.start()
    result = pack_writer.write(tmp_path / "many.h5", manifest)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert result.bytes > 50e6
    assert peak < 15e6
