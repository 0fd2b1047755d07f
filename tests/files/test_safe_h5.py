"""HDF5 of unknown origin: what is read is right, and nothing else is ever read or allocated."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import safe_h5

VALUES = np.arange(12, dtype=np.float32).reshape(3, 4)


@pytest.fixture
def make(tmp_path: Path) -> Callable[[Callable[[h5py.File], object]], Path]:
    """Write a file by a function of the open h5py file."""

    def write(fill: Callable[[h5py.File], object]) -> Path:
        path = tmp_path / "file.h5"
        with h5py.File(path, "w") as file:
            fill(file)
        return path

    return write


def read(
    path: Path, name: str = "x", *, ndim: int = 2, kinds: str = "f", **more: int
) -> np.ndarray:
    with safe_h5.open_file(path) as file:
        return safe_h5.read_dataset(file, name, ndim=ndim, kinds=kinds, **more)


def put(name: str, **settings: object) -> Callable[[h5py.File], object]:
    return lambda file: file.create_dataset(name, **settings)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"chunks": (2, 2)},
        {"chunks": (2, 2), "compression": "gzip", "shuffle": True, "fletcher32": True},
        {"dtype": ">f4"},
        {"dtype": "f8"},
        {"dtype": "f2"},
    ],
)
def test_reads_what_was_written(make: Callable, settings: dict) -> None:
    path = make(put("a/b/x", data=VALUES, **settings))
    found = read(path, "a/b/x")
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, VALUES)


def test_kinds_and_ranks(make: Callable) -> None:
    def fill(file: h5py.File) -> None:
        file["bool"] = np.array([True, False])
        file["int"] = np.array([1, -1], ">i2")
        file["empty"] = np.empty((0, 3), "f4")
        file["one"] = 2.5
        file.create_dataset("text", data=np.array(["é".encode(), b"b"]), dtype="S5")

    path = make(fill)
    assert read(path, "bool", ndim=1, kinds="b").tolist() == [True, False]
    assert read(path, "int", ndim=1, kinds="iu").tolist() == [1, -1]
    assert read(path, "empty").shape == (0, 3)
    assert read(path, "one", ndim=0) == 2.5
    assert read(path, "text", ndim=1, kinds="S").tolist() == ["é".encode(), b"b"]
    for name, ndim, kinds in (
        ("int", 1, "f"),
        ("int", 2, "i"),
        ("text", 1, "iufb"),
        ("one", 1, "f"),
    ):
        with pytest.raises(InputError, match=f"/{name} "):
            read(path, name, ndim=ndim, kinds=kinds)


def test_maps_contiguous_data_of_the_file_that_is_open(make: Callable, tmp_path: Path) -> None:
    path = make(put("x", data=VALUES))
    other = tmp_path / "other"
    other.write_bytes(b"another file")
    with safe_h5.open_file(path) as file:
        os.replace(other, path)
        found = safe_h5.map_dataset(safe_h5.open_dataset(file, "x", ndim=2, kinds="f"))
    assert isinstance(found, np.memmap)
    np.testing.assert_array_equal(found, VALUES)
    with pytest.raises(ValueError, match="read-only"):
        found[0, 0] = 1


@pytest.mark.parametrize("settings", [{"chunks": (2, 2)}, {"dtype": ">f4"}, {"data": VALUES[:0]}])
def test_does_not_map_what_cannot_be(make: Callable, settings: dict) -> None:
    path = make(put("x", **{"data": VALUES, **settings}))
    with safe_h5.open_file(path) as file:
        assert safe_h5.map_dataset(safe_h5.open_dataset(file, "x", ndim=2, kinds="f")) is None


def external_storage(file: h5py.File) -> None:
    file.create_dataset("x", (3, 4), "u1", external=[("/etc/passwd", 0, 12)])


def external_link(file: h5py.File) -> None:
    file["x"] = h5py.ExternalLink("secret.h5", "/x")


def external_link_between(file: h5py.File) -> None:
    file["a"] = h5py.ExternalLink("secret.h5", "/")
    file["x"] = VALUES


def soft_link(file: h5py.File) -> None:
    file["y"] = VALUES
    file["x"] = h5py.SoftLink("/y")


def soft_link_between(file: h5py.File) -> None:
    file["b/x"] = VALUES
    file["a"] = h5py.SoftLink("/b")
    file["x"] = VALUES


def virtual(file: h5py.File) -> None:
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource("secret.h5", "x", (3, 4))
    file.create_virtual_dataset("x", layout)


def shape_bomb(file: h5py.File) -> None:
    file.create_dataset("x", (10**12, 4), "f4", chunks=(1000, 4))


def contiguous_bomb(file: h5py.File) -> None:
    file.create_dataset("x", (10**9, 4), "f4")


def small_bomb(file: h5py.File) -> None:
    file.create_dataset("x", (10**6, 4), "f4", chunks=(1000, 4))


def gzip_shape_bomb(file: h5py.File) -> None:
    file.create_dataset("x", (10**7, 4), "f4", chunks=(1000, 4), compression="gzip")


def compound(file: h5py.File) -> None:
    file["x"] = np.zeros((3, 4), [("a", "f4"), ("b", "i4")])


def references(file: h5py.File) -> None:
    file["y"] = VALUES
    file.create_dataset(
        "x", data=np.full((3, 4), file["y"].ref, h5py.ref_dtype), dtype=h5py.ref_dtype
    )


def ragged(file: h5py.File) -> None:
    file.create_dataset("x", (3, 4), h5py.vlen_dtype(np.float32))


def variable_text(file: h5py.File) -> None:
    file["x"] = [["a"] * 4] * 3


def opaque(file: h5py.File) -> None:
    file["x"] = np.zeros((3, 4), "V8")


def lzf(file: h5py.File) -> None:
    file.create_dataset("x", data=VALUES, compression="lzf")


def scale_offset(file: h5py.File) -> None:
    file.create_dataset("x", data=VALUES, scaleoffset=2)


def a_group(file: h5py.File) -> None:
    file.create_group("x")


def a_type(file: h5py.File) -> None:
    file["x"] = np.dtype("f4")


def null_space(file: h5py.File) -> None:
    file["x"] = h5py.Empty("f4")


HOSTILE = [
    external_storage, external_link, soft_link, virtual, shape_bomb, contiguous_bomb, small_bomb,
    gzip_shape_bomb, compound, references, ragged, variable_text, opaque, lzf, scale_offset,
    a_group, a_type, null_space,
]  # fmt: skip


@pytest.mark.parametrize("fill", HOSTILE, ids=lambda fill: fill.__name__)
def test_hostile_datasets_are_refused(make: Callable, tmp_path: Path, fill: Callable) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = VALUES
    path = make(fill)
    with pytest.raises(InputError) as caught:
        read(path, kinds="Sbiuf")
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("fill", [external_link_between, soft_link_between])
def test_links_inside_a_path_are_refused(make: Callable, tmp_path: Path, fill: Callable) -> None:
    with h5py.File(tmp_path / "secret.h5", "w") as secret:
        secret["x"] = VALUES
    path = make(fill)
    with pytest.raises(InputError, match="link"):
        read(path, "a/x")
    with safe_h5.open_file(path) as file, pytest.raises(InputError, match="link"):
        safe_h5.has_object(file, "a/x")
    with safe_h5.open_file(path) as file, pytest.raises(InputError, match="link"):
        safe_h5.list_children(file, "a")


def test_cycles_of_hard_links_end(make: Callable) -> None:
    def fill(file: h5py.File) -> None:
        file["a/x"] = VALUES
        file["a/again"] = file["a"]
        file["a/root"] = file["/"]

    path = make(fill)
    with safe_h5.open_file(path) as file:
        assert safe_h5.list_children(file, "a") == ["again", "root", "x"]
    np.testing.assert_array_equal(read(path, "a/again/again/root/a/x"), VALUES)


def test_missing_things(make: Callable) -> None:
    path = make(put("x", data=VALUES))
    with safe_h5.open_file(path) as file:
        assert safe_h5.has_object(file, "x")
        assert not any(safe_h5.has_object(file, name) for name in ("y", "x/y", "a/b"))
        assert safe_h5.list_children(file, "columns") == []
        assert safe_h5.read_attribute(file, "none", "default") == "default"
    with pytest.raises(InputError, match="it has no /y"):
        read(path, "y")


def test_too_many_children(make: Callable, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(safe_h5, "MOST_CHILDREN", 3)
    path = make(lambda file: [file.create_group(f"columns/{i}") for i in range(4)])
    with safe_h5.open_file(path) as file, pytest.raises(InputError, match="more than 3"):
        safe_h5.list_children(file, "columns")


def test_the_cap_holds(make: Callable) -> None:
    path = make(put("x", data=VALUES))
    assert read(path, cap=48).nbytes == 48
    with pytest.raises(InputError, match="declares 48 bytes, more than 47"):
        read(path, cap=47)


def test_chunks_that_could_unpack_to_too_much(make: Callable) -> None:
    noise = np.random.default_rng(0).random((1000, 100))
    path = make(put("x", data=noise, chunks=(1000, 100), compression="gzip"))
    assert len(read(path)) == 1000
    with pytest.raises(InputError, match="unpack"):
        read(path, cap=10_000_000)


BIG_READ = """
import re, sys
from mltool.errors import InputError
from mltool.files import safe_h5
with safe_h5.open_file(sys.argv[1]) as file:
    try:
        safe_h5.read_dataset(file, "x", ndim=2, kinds="f", cap=50_000_000)
    except InputError:
        pass
    else:
        sys.exit(1)
print(re.search(r"VmHWM:\\s+(\\d+)", open("/proc/self/status").read())[1])
"""


def test_a_gzip_bomb_takes_no_memory(make: Callable) -> None:
    path = make(
        put("x", data=np.zeros((50_000, 1000), "f4"), chunks=(50, 1000), compression="gzip")
    )
    assert path.stat().st_size < 1_000_000
    done = subprocess.run(
        [sys.executable, "-c", BIG_READ, str(path)], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 150_000  # KiB, of which Python takes half; the data are 200 MB


def test_attributes(make: Callable) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["text"] = np.bytes_(("é" * 10_000).encode())
        file.attrs["variable"] = "é"
        file.attrs["int"] = 3
        file.attrs["float"] = 0.5
        file.attrs["yes"] = True
        file.attrs["one"] = np.int64(1)
        file.attrs["array"] = np.arange(3)
        file.attrs["pair"] = np.zeros((), [("a", "f4")])
        file.attrs["bytes"] = np.bytes_(b"\xff")
        for number in range(1000):
            file.attrs[f"more {number}"] = number

    path = make(fill)
    with safe_h5.open_file(path) as file:
        assert safe_h5.read_attribute(file, "text", "") == "é" * 10_000
        assert safe_h5.read_attribute(file, "int", 0) == 3
        assert safe_h5.read_attribute(file, "float", 0.0) == 0.5
        assert safe_h5.read_attribute(file, "yes", False) is True
        assert safe_h5.read_attribute(file, "one", False) is True
        assert type(safe_h5.read_attribute(file, "int", 0)) is int
        for name in ("array", "pair", "bytes", "int", "variable"):
            with pytest.raises(InputError):
                safe_h5.read_attribute(file, name, "")
        with pytest.raises(InputError, match="no int"):
            safe_h5.read_attribute(file, "text", 0)


def test_attributes_of_any_size_are_not_read(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "file.h5", "w", libver="latest") as file:
        file.attrs["space"] = np.bytes_(b"x" * 100_000)
    with safe_h5.open_file(tmp_path / "file.h5") as file, pytest.raises(InputError):
        safe_h5.read_attribute(file, "space", "")


def test_formats(make: Callable) -> None:
    def fill(file: h5py.File) -> None:
        file.attrs["format"] = np.bytes_(b"mltool-pack")
        file.attrs["format_version"] = 2

    path = make(fill)
    with safe_h5.open_file(path) as file:
        safe_h5.check_format(file, "mltool-pack", 2)
        with pytest.raises(InputError, match="newer mltool"):
            safe_h5.check_format(file, "mltool-pack", 1)
        with pytest.raises(InputError, match="is an mltool-pack file"):
            safe_h5.check_format(file, "mltool-embeddings", 2)
    with (
        safe_h5.open_file(make(put("x", data=VALUES))) as file,
        pytest.raises(InputError, match="not written by mltool"),
    ):
        safe_h5.check_format(file, "mltool-pack", 2)


def test_files_that_are_not_hdf5(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "text").write_text("path,label\n")
    (tmp_path / "empty").touch()
    (tmp_path / "start").write_bytes(safe_h5.SIGNATURE)
    (tmp_path / "zeros").write_bytes(safe_h5.SIGNATURE + bytes(3000))
    for name in ("missing", "pipe", "text", "empty", "start", "zeros", "."):
        with (
            pytest.raises(InputError, match=str(tmp_path / name)),
            safe_h5.open_file(tmp_path / name),
        ):
            pass


def test_truncated_anywhere(make: Callable) -> None:
    path = make(put("x", data=np.random.default_rng(0).random((50, 50))))
    whole = path.read_bytes()
    for size in (*range(0, len(whole), len(whole) // 10), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            read(path)


FUZZ = """
import resource, sys
import numpy as np
from mltool.errors import InputError
from mltool.files import safe_h5
resource.setrlimit(resource.RLIMIT_AS, (4 << 30, 4 << 30))
whole, random = np.fromfile(sys.argv[1], np.uint8), np.random.default_rng(int(sys.argv[2]))
structure = np.flatnonzero(whole)
refused = 0
for _ in range(400):
    broken = whole.copy()
    for place in random.choice(structure, random.integers(1, 4)):
        broken[place] ^= 1 << random.integers(8)
    broken.tofile(sys.argv[1])
    try:
        with safe_h5.open_file(sys.argv[1]) as file:
            safe_h5.read_attribute(file, "space", "")
            for name in safe_h5.list_children(file, "columns"):
                safe_h5.read_dataset(file, "columns/" + name, ndim=1, kinds="Sbiuf")
            safe_h5.read_dataset(file, "x", ndim=2, kinds="f")
            safe_h5.read_dataset(file, "names", ndim=1, kinds="S")
    except InputError:
        refused += 1
print(refused)
"""


@pytest.mark.parametrize("seed", range(3))
def test_mutated_files_end_in_one_error(make: Callable, seed: int) -> None:
    def fill(file: h5py.File) -> None:
        file["x"] = np.zeros((3, 4), "f4")
        file["names"] = np.array([b"a", b"b", b"c"])
        file["columns/z"] = np.zeros(3)
        file.create_dataset("columns/w", data=np.zeros(300), chunks=100, compression="gzip")
        file.attrs["space"] = np.bytes_(b"abc")

    done = subprocess.run(
        [sys.executable, "-c", FUZZ, str(make(fill)), str(seed)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) > 100
