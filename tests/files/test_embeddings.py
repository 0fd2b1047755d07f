"""Embeddings files: what was written comes back, as the same bytes, or an error says why not."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import cast

import h5py
import numpy as np
import pytest

from mltool.errors import InputError, NumericError, ResourceError
from mltool.files import embeddings
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings

Change = Callable[[h5py.File], object]


def example(count: int = 10, dim: int = 4, dtype: str = "float32") -> Embeddings:
    random = np.random.default_rng(count)
    return Embeddings(
        names=[f"a/{number}.jpg" for number in range(count)],
        vectors=random.standard_normal((count, dim)).astype(dtype),
        labels=np.arange(count) % 3 - 1,
        label_names=("müsli", "b"),
        columns={
            "split": np.array([b"train", b"test"] * count)[:count],
            "is_query": np.arange(count) % 2 == 0,
            "weight": np.linspace(0, 1, count),
        },
        metric="euclidean",
        normalized=True,
        space="abc",
        preprocess='{"resize": 8}',
        root="/data/images",
        history=(
            {"command": "train", "version": "1"},
            {"command": "embed", "text": "é\n" * 50_000},
        ),
    )


def assert_equal(found: Embeddings, wanted: Embeddings) -> None:
    assert found.vectors.dtype == wanted.vectors.dtype
    for key in ("names", "vectors", "labels"):
        np.testing.assert_array_equal(getattr(found, key), getattr(wanted, key))
    assert found.columns.keys() == wanted.columns.keys()
    for key, column in wanted.columns.items():
        assert found.columns[key].dtype.kind == column.dtype.kind
        np.testing.assert_array_equal(found.columns[key], column)
    for key in ("label_names", "metric", "normalized", "space", "preprocess", "root", "history"):
        assert getattr(found, key) == getattr(wanted, key)


@pytest.fixture
def broken(tmp_path: Path) -> Callable[[Change], Path]:
    """A good file after a change by h5py."""

    def make(change: Change) -> Path:
        path = tmp_path / "broken.h5"
        embeddings.write(path, example())
        with h5py.File(path, "r+") as file:
            change(file)
        return path

    return make


@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("count", [0, 1, 4095, 4096, 4097, 10_000])
def test_round_trip(tmp_path: Path, count: int, dtype: str) -> None:
    wanted = example(count, dtype=dtype)
    digest = embeddings.write(tmp_path / "e.h5", wanted)
    for load in (False, True):
        found = embeddings.read(tmp_path / "e.h5", load=load)
        assert_equal(found, wanted)
        assert found.digest == digest
        assert found.vectors.flags.writeable is (load or count == 0)
    embeddings.verify(tmp_path / "e.h5", full=True)
    assert os.listdir(tmp_path) == ["e.h5"]


@pytest.mark.parametrize("dim", [1, 3, 65_536])
def test_round_trip_of_widths(tmp_path: Path, dim: int) -> None:
    embeddings.write(tmp_path / "e.h5", example(3, dim))
    assert_equal(embeddings.read(tmp_path / "e.h5"), example(3, dim))


def test_the_short_form() -> None:
    plain = Embeddings(["b", "é"], [[1, 2], [3, 4]])
    assert plain.names.tolist() == [b"b", "é".encode()]
    assert plain.vectors.dtype == np.float32
    assert plain.labels.tolist() == [-1, -1]
    named = Embeddings(["x", "y", "z"], np.eye(3), ["cat", "", "ant"])
    assert named.label_names == ("ant", "cat")
    assert named.labels.tolist() == [1, -1, 0]
    assert Embeddings(np.array(["x"]), np.eye(1), np.array(["cat"])).label_names == ("cat",)


def test_any_program_reads_it(tmp_path: Path) -> None:
    wanted = example(5000)
    embeddings.write(tmp_path / "e.h5", wanted)
    with h5py.File(tmp_path / "e.h5") as file:
        np.testing.assert_array_equal(file["embeddings"][:], wanted.vectors)
        assert file["embeddings"].chunks is None
        assert file["names"][:2].tolist() == [b"a/0.jpg", b"a/1.jpg"]
        assert h5py.check_string_dtype(file["names"].dtype) == ("utf-8", 10)
        assert file["label_names"].asstr()[0] == "müsli"
        assert json.loads(file["history"][0])["command"] == "train"
        attributes = {key: file.attrs[key] for key in ("format", "format_version", "normalized")}
        assert attributes == {"format": b"mltool-embeddings", "format_version": 1, "normalized": 1}
        for block, rows in enumerate((slice(0, 4096), slice(4096, 5000))):
            wanted_hash = hashlib.sha256(wanted.vectors[rows].tobytes()).digest()
            assert file["block_sha256"][block].tobytes() == wanted_hash


def test_the_matrix_is_mapped_and_aligned(tmp_path: Path) -> None:
    embeddings.write(tmp_path / "e.h5", example(100))
    found = embeddings.read(tmp_path / "e.h5")
    assert isinstance(found.vectors.base, np.memmap)
    assert found.vectors.ctypes.data % 64 == 0


SAME = """
import sys
from mltool.files import embeddings
found = embeddings.read(sys.argv[1])
print(embeddings.write(sys.argv[2], found))
"""


def test_same_content_same_bytes(tmp_path: Path) -> None:
    one, two = tmp_path / "one.h5", tmp_path / "another name.h5"
    wanted = example(5000)
    digest = embeddings.write(one, wanted)
    wider = replace(wanted, names=wanted.names.astype("S99"), vectors=wanted.vectors.copy("F"))
    assert embeddings.write(two, wider) == digest
    assert one.read_bytes() == two.read_bytes()
    environment = os.environ | {"PYTHONHASHSEED": "7", "LC_ALL": "C"}
    done = subprocess.run(
        [sys.executable, "-c", SAME, str(one), str(two)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == digest, done.stderr
    assert one.read_bytes() == two.read_bytes()


def test_the_digest_is_of_the_content(tmp_path: Path) -> None:
    wanted = example()
    changes = [
        {"vectors": wanted.vectors * 2},
        {"names": np.char.add(wanted.names, b"x")},
        {"labels": wanted.labels[::-1]},
        {"label_names": ("other", "b")},
        {"columns": {}},
        {"metric": "dot"},
        {"normalized": False},
        {"space": "abd"},
        {"preprocess": ""},
        {"root": "/data"},
        {"history": ()},
    ]
    digests = [
        embeddings.write(tmp_path / "e.h5", replace(wanted, **change)) for change in [{}, *changes]
    ]
    assert len(set(digests)) == len(digests)
    assert digests[0] == embeddings.write(tmp_path / "other.h5", wanted)


def test_keep_writes_the_rows_that_are_left(tmp_path: Path) -> None:
    wanted = example(9000)
    keep = np.random.default_rng(0).random(9000) < 0.7
    embeddings.write(tmp_path / "kept.h5", wanted, keep=keep)
    columns = {key: column[keep] for key, column in wanted.columns.items()}
    rest = replace(
        wanted,
        names=wanted.names[keep],
        vectors=wanted.vectors[keep],
        labels=wanted.labels[keep],
        columns=columns,
    )
    embeddings.write(tmp_path / "rest.h5", rest)
    assert (tmp_path / "kept.h5").read_bytes() == (tmp_path / "rest.h5").read_bytes()
    embeddings.write(tmp_path / "none.h5", wanted, keep=np.zeros(9000, bool))
    assert len(embeddings.read(tmp_path / "none.h5")) == 0


@pytest.mark.parametrize(
    "rows",
    [
        *(np.arange(10), np.array([3, 4, 5]), np.array([5, 3, 3]), np.array([0, 1, 1, 3])),
        *(np.array([], int), np.arange(10) % 3 == 0, np.arange(10) > 6, np.zeros(10, bool)),
    ],
    ids=str,
)
@pytest.mark.parametrize("concatenated", [False, True])
def test_take_selects_rows(rows: np.ndarray, concatenated: bool) -> None:
    whole = example()
    parts = ConcatenatedRows([whole.vectors[:4], whole.vectors[4:]])
    taken = (replace(whole, vectors=cast(np.ndarray, parts)) if concatenated else whole).take(rows)
    np.testing.assert_array_equal(taken.names, whole.names[rows])
    np.testing.assert_array_equal(np.asarray(taken.vectors), whole.vectors[rows])
    np.testing.assert_array_equal(taken.labels, whole.labels[rows])
    assert taken.columns.keys() == whole.columns.keys()
    for key, column in taken.columns.items():
        np.testing.assert_array_equal(column, whole.columns[key][rows])
    assert (taken.metric, taken.label_names) == (whole.metric, whole.label_names)


def test_take_copies_no_vectors_of_consecutive_rows() -> None:
    whole = example()
    assert np.shares_memory(whole.take(np.arange(3, 6)).vectors, whole.vectors)
    assert not np.shares_memory(whole.take(np.array([3, 5])).vectors, whole.vectors)


def test_the_root_moves_with_the_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    embeddings.write(tmp_path / "a/e.h5", replace(example(), root=str(tmp_path / "a/images")))
    shutil.move(tmp_path / "a", tmp_path / "b")
    assert embeddings.read(tmp_path / "b/e.h5").root == str(tmp_path / "b/images")
    embeddings.write(tmp_path / "e.h5", replace(example(), root=""))
    assert embeddings.read(tmp_path / "e.h5").root == ""


@pytest.mark.parametrize("kind", [np.nan, np.inf, -np.inf])
def test_values_that_are_not_finite(tmp_path: Path, kind: float) -> None:
    good = example(5000)
    vectors = good.vectors.copy()
    vectors[4500, 2] = kind
    with pytest.raises(NumericError, match=r"a/4500\.jpg"):
        embeddings.write(tmp_path / "e.h5", replace(good, vectors=vectors))
    assert os.listdir(tmp_path) == []
    embeddings.write(tmp_path / "e.h5", good)
    with h5py.File(tmp_path / "e.h5", "r+") as file:
        file["embeddings"][4500, 2] = kind
    with pytest.raises(InputError, match=r"a/4500\.jpg"):
        embeddings.read(tmp_path / "e.h5")
    assert len(embeddings.read_header(tmp_path / "e.h5")) == 5000


def put(name: str, data: object) -> Change:
    def change(file: h5py.File) -> None:
        del file[name]
        file[name] = data

    return change


def set_attribute(name: str, value: object) -> Change:
    return lambda file: file.attrs.__setitem__(name, value)


ROWS = example().vectors


@pytest.mark.parametrize("data", [ROWS.astype("f8"), ROWS.astype(">f4"), ROWS.astype(">f2")])
def test_other_float_types_are_converted(
    broken: Callable[[Change], Path], data: np.ndarray
) -> None:
    found = embeddings.read(broken(put("embeddings", data)))
    assert found.vectors.dtype in (np.float32, np.float16)
    np.testing.assert_array_equal(found.vectors, data)


WRONG: dict[str, Change] = {
    "newer mltool": set_attribute("format_version", 2),
    "mltool-index": set_attribute("format", np.bytes_(b"mltool-index")),
    "not written by mltool": lambda file: file.attrs.__delitem__("format"),
    "no /embeddings": lambda file: file.__delitem__("embeddings"),
    "no /names": lambda file: file.__delitem__("names"),
    "10 names do not fit 9 vectors": put("embeddings", ROWS[:9]),
    "9 names do not fit": put("names", np.array([b"%d" % n for n in range(9)])),
    "10 names do not fit 9 labels": put("labels", np.zeros(9, np.int64)),
    "column weight": put("columns/weight", np.zeros(11)),
    "not 2 dimensions": put("embeddings", ROWS.ravel()),
    "values of type int": put("embeddings", np.zeros((10, 4), np.int32)),
    "stand": put("names", np.array([b"same"] * 10)),
    "a name is not UTF-8": put("names", np.array([b"%d\xff" % n for n in range(10)])),
    "a label name is not UTF-8": put("label_names", np.array([b"\xff", b"b"])),
    "labels must lie": put("labels", np.full(10, 2)),
    "labels must lie between": put("labels", np.full(10, -2)),
    "no metric 'angle'": set_attribute("metric", np.bytes_(b"angle")),
    "D > 0": put("embeddings", np.zeros((10, 0), np.float32)),
    "not finite": put("embeddings", np.full((10, 4), 1e300)),
    "is damaged": put("history", np.array([b"{not json"])),
    "not a list of steps": put("history", np.array([b"3"])),
    "is not finished": set_attribute("digest", np.bytes_(b"unfinished:123")),
}


@pytest.mark.parametrize("message", WRONG)
def test_wrong_content_has_one_clear_error(broken: Callable[[Change], Path], message: str) -> None:
    path = broken(WRONG[message])
    with pytest.raises(InputError, match=message) as caught:
        embeddings.read(path)
    assert "\n" not in str(caught.value)


def test_impossible_embeddings() -> None:
    with pytest.raises(InputError, match="2 names do not fit 3 vectors"):
        Embeddings(["a", "b"], np.eye(3))
    with pytest.raises(InputError, match="N rows"):
        Embeddings(["a"], np.zeros(3))
    with pytest.raises(InputError, match="NUL"):
        Embeddings(["a\0b"], np.eye(1))
    with pytest.raises(InputError, match="text or numbers"):
        Embeddings(["a"], np.eye(1), columns={"c": np.array([None])})


def test_names_are_checked_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="more than once"):
        embeddings.write(tmp_path / "e.h5", Embeddings(["a", "b", "a"], np.eye(3)))
    with pytest.raises(InputError, match="not UTF-8"):
        embeddings.write(tmp_path / "e.h5", Embeddings(np.array([b"\xff"]), np.eye(1)))
    for name in ("a/b", "", "."):
        wrong = Embeddings(["a"], np.eye(1), columns={name: np.zeros(1)})
        with pytest.raises(InputError, match="column"):
            embeddings.write(tmp_path / "e.h5", wrong)
    assert os.listdir(tmp_path) == []


def test_odd_names_come_back(tmp_path: Path) -> None:
    names = ["é", "e\u0301", "🦊", "אב", "a\nb", "a\tb", '"', "-rf", "\x1b[31m", "x" * 255, " end "]
    embeddings.write(tmp_path / "e.h5", Embeddings(names, np.eye(len(names))))
    found = embeddings.read(tmp_path / "e.h5")
    assert [name.decode() for name in found.names.tolist()] == names


def test_truncated_files_are_found(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    embeddings.write(path, example(5000))
    whole = path.read_bytes()
    for size in (0, 1, 100, *range(len(whole) // 10, len(whole), len(whole) // 10), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            embeddings.verify(path, full=False)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError):
        embeddings.verify(path, full=True)


FLIP = """
import sys
import numpy as np
from mltool.errors import InputError
from mltool.files import embeddings
whole, random = np.fromfile(sys.argv[1], np.uint8), np.random.default_rng(0)
for place in [*random.integers(len(whole), size=200), *random.integers(3000, size=200)]:
    broken = whole.copy()
    broken[place] ^= 1 << random.integers(8)
    broken.tofile(sys.argv[1])
    try:
        embeddings.verify(sys.argv[1], full=True)
    except InputError:
        continue
    sys.exit(f"a flip at {place} was not found")
"""


def test_every_bit_flip_is_found(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    embeddings.write(path, replace(example(200), history=({"command": "embed"},)))
    done = subprocess.run([sys.executable, "-c", FLIP, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]


def test_damaged_rows_are_named(broken: Callable[[Change], Path], tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    embeddings.write(path, example(5000))
    with h5py.File(path, "r+") as file:
        file["embeddings"][4999, 0] += 1
    with pytest.raises(InputError, match="rows 4096 to 4999 are damaged"):
        embeddings.verify(path, full=True)
    with pytest.raises(InputError, match="checksums do not fit its rows"):
        embeddings.verify(broken(put("block_sha256", np.zeros((2, 32), np.uint8))), full=False)


def test_a_digest_of_something_else_is_found(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    digest = embeddings.write(path, example())
    with h5py.File(path) as file:
        place = file.attrs["frame_sha256"]
        start = file["embeddings"].id.get_offset()
    whole = path.read_bytes().replace(digest.encode(), digest[::-1].encode())
    frame = whole[:start] + whole[start + example().vectors.nbytes :]
    fitting = hashlib.sha256(frame.replace(place, b"")).hexdigest()
    path.write_bytes(whole.replace(place, fitting.encode()))
    with pytest.raises(InputError, match="content does not fit its digest"):
        embeddings.verify(path, full=True)


LIMITED = """
import resource, sys
from mltool.errors import MltoolError
from mltool.files import embeddings
found = embeddings.read(sys.argv[1], load=True)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]),) * 2)
try:
    embeddings.write(sys.argv[2], found)
except MltoolError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def test_disk_full_is_exit_6_and_the_old_file_stays(tmp_path: Path) -> None:
    source, path = tmp_path / "source.h5", tmp_path / "e.h5"
    embeddings.write(source, example(5000, 64))
    embeddings.write(path, example(3))
    old, size = path.read_bytes(), source.stat().st_size
    for part in (0, 0.01, 0.3, 0.9, 0.9999):
        command = [sys.executable, "-c", LIMITED, str(source), str(path), str(int(part * size))]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 6, done.stderr
        assert "e.h5" in done.stdout
        assert path.read_bytes() == old
        assert sorted(os.listdir(tmp_path)) == ["e.h5", "source.h5"]


def test_too_little_space_is_known_before(tmp_path: Path) -> None:
    endless = np.broadcast_to(np.zeros(1, np.float32), (1, 2**50))
    with pytest.raises(ResourceError, match="bytes, but"):
        embeddings.write(tmp_path / "e.h5", Embeddings(["a"], endless))


READER = """
import sys
import numpy as np
from mltool.files import embeddings
for _ in range(60):
    found = embeddings.read(sys.argv[1])
    assert len(np.unique(found.vectors)) == 1
    assert found.space == str(int(found.vectors[0, 0]))
"""


def test_readers_see_one_whole_version(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"

    def write(number: int) -> None:
        vectors = np.full((300, 16), number, np.float32)
        names = [str(row) for row in range(300)]
        embeddings.write(path, Embeddings(names, vectors, space=str(number)))

    write(0)
    command = [sys.executable, "-c", READER, str(path)]
    readers = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    number = 0
    while any(reader.poll() is None for reader in readers):
        number += 1
        write(number)
    for reader in readers:
        _, errors = reader.communicate()
        assert reader.returncode == 0, errors.decode()


@pytest.mark.parametrize("concatenated", [False, True])
@pytest.mark.parametrize(
    ("rows", "expected", "is_view"),
    [
        (np.array([2, 0]), "ca", False),
        (np.array([1, 2]), "bc", True),
        (np.array([False, True, True, False]), "bc", True),
        (np.array([True, False, False, True]), "ad", False),
        (np.zeros(4, bool), "", False),
    ],
)
def test_rows_are_taken_from_every_array(rows, expected, is_view, concatenated):
    matrix = np.arange(8, dtype=np.float32).reshape(4, 2)
    whole = Embeddings(
        list("abcd"),
        ConcatenatedRows([matrix]) if concatenated else matrix,
        np.arange(4),
        columns={"weight": np.arange(4) / 2},
        metric="dot",
    )
    part = whole.take(rows)
    numbers = ["abcd".index(name) for name in expected]
    assert [name.decode() for name in part.names.tolist()] == list(expected)
    assert part.labels.tolist() == numbers
    assert part.columns["weight"].tolist() == [number / 2 for number in numbers]
    np.testing.assert_array_equal(np.asarray(part.vectors), matrix[numbers])
    assert np.shares_memory(part.vectors[:], matrix) == is_view
    assert part.metric == "dot"
