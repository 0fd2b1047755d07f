"""The container: any HDF5 program finds what was laid out, and the checksums cover every byte."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings, hits, pack, safe_h5, sealed, search_index
from mltool.files.embeddings import Embeddings
from mltool.files.hits import Hits
from mltool.files.sealed import Attribute, Field, Frame, Stream
from mltool.files.search_index import SearchIndex

ARRAYS = {
    "names": np.array([b"\xc3\xa9", b"abc"]),
    "columns/weight": np.array([0.5, np.nan]),
    "columns/seen": np.array([True, False]),
    "hashes": np.zeros((2, 32), np.uint8),
    "none": np.array([], np.int64),
}
ATTRIBUTES: dict[str, Attribute] = {"format": "é", "number": 3, "share": 0.25, "empty": ""}
VALUES = np.arange(12, dtype=np.float32).reshape(4, 3)
STREAM = Stream("matrix", VALUES.shape, VALUES.dtype)


def write(path: Path, frame: Frame, values: np.ndarray = VALUES) -> Path:
    path.write_bytes(frame.head + values.tobytes() + frame.tail)
    assert path.stat().st_size == frame.size
    return path


def assert_holds_everything(path: Path) -> None:
    with h5py.File(path) as file:
        for name, array in ARRAYS.items():
            np.testing.assert_array_equal(file[name][()].astype(array.dtype), array)
        assert file["names"].asstr()[:].tolist() == ["é", "abc"]
        assert dict(file.attrs) == {**ATTRIBUTES, "format": "é".encode(), "empty": b""}


@pytest.mark.parametrize("stream_first", [False, True])
@pytest.mark.parametrize("alignment", [1, 64])
def test_any_program_reads_what_is_laid_out(
    tmp_path: Path, stream_first: bool, alignment: int
) -> None:
    frame = sealed.lay_out(
        ARRAYS, ATTRIBUTES, STREAM, stream_first=stream_first, alignment=alignment
    )
    path = write(tmp_path / "file.h5", frame)
    assert_holds_everything(path)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["matrix"][()], VALUES)
        assert file["matrix"].id.get_offset() == len(frame.head)
        assert file["hashes"].id.get_offset() == frame.offsets["hashes"]
    assert len(frame.head) % alignment == 0


def test_a_stream_that_comes_first_begins_at_a_constant_offset() -> None:
    def start(arrays: dict[str, np.ndarray], rows: int) -> int:
        stream = Stream("matrix", (rows, 3), np.dtype(np.float32))
        return len(sealed.lay_out(arrays, {}, stream, stream_first=True).head)

    assert start({}, 1) == start(ARRAYS, 100_000)


def test_an_empty_stream_has_no_bytes(tmp_path: Path) -> None:
    empty = np.zeros((0, 3), np.float32)
    frame = sealed.lay_out(ARRAYS, ATTRIBUTES, Stream("matrix", empty.shape, empty.dtype))
    path = write(tmp_path / "file.h5", frame, empty)
    assert_holds_everything(path)
    with h5py.File(path) as file:
        assert file["matrix"].shape == (0, 3)


def test_a_large_stream_takes_no_memory() -> None:
    stream = Stream("matrix", (10**9, 2048), np.dtype(np.float32))
    frame = sealed.lay_out(ARRAYS, ATTRIBUTES, stream)
    assert frame.size > stream.nbytes == 8192 * 10**9
    assert len(frame.head) + len(frame.tail) < 10**6


def test_a_file_without_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "file.h5"
    path.write_bytes(sealed.to_bytes(ARRAYS, ATTRIBUTES))
    assert_holds_everything(path)
    assert path.read_bytes() == sealed.to_bytes(ARRAYS, ATTRIBUTES)


def seal_frame(*, stream_first: bool = False) -> Frame:
    mark = sealed.mark(sealed.CHECKSUM, b"content")
    attributes = {**ATTRIBUTES, sealed.CHECKSUM: mark}
    return sealed.lay_out(ARRAYS, attributes, STREAM, stream_first=stream_first).seal(mark)


def is_intact(path: Path) -> bool:
    with safe_h5.open_file(path) as file:
        return sealed.is_frame_intact(safe_h5.open_dataset(file, "matrix", ndim=2, kinds="f"))


@pytest.mark.parametrize("stream_first", [False, True])
def test_the_checksum_covers_every_byte_of_the_frame(tmp_path: Path, stream_first: bool) -> None:
    frame = seal_frame(stream_first=stream_first)
    path = write(tmp_path / "file.h5", frame)
    assert is_intact(path)
    raw = path.read_bytes()
    start, stop = len(frame.head), len(frame.head) + STREAM.nbytes
    with h5py.File(path) as file:
        offsets = [file[name].id.get_offset() for name in ("names", "columns/weight", "hashes")]
    for offset in (*offsets, len(raw) - 1 if stream_first else start - 1):
        assert not start <= offset < stop
        damaged = bytearray(raw)
        damaged[offset] ^= 1
        path.write_bytes(damaged)
        assert not is_intact(path)
    path.write_bytes(raw[:start] + bytes(STREAM.nbytes) + raw[stop:])
    assert is_intact(path)  # the stream has other checksums


def test_a_frame_without_a_checksum_is_not_intact(tmp_path: Path) -> None:
    assert not is_intact(write(tmp_path / "file.h5", sealed.lay_out(ARRAYS, ATTRIBUTES, STREAM)))


def test_a_mark_stands_once_and_is_replaced() -> None:
    mark = sealed.mark("digest", b"content")
    assert len(mark) == sealed.MARK_BYTES
    assert mark.startswith(sealed.UNFINISHED)
    assert mark != sealed.mark("digest", b"other")
    assert mark != sealed.mark("checksum", b"content")
    frame = sealed.lay_out(ARRAYS, {**ATTRIBUTES, "digest": mark}, STREAM)
    assert (frame.head + frame.tail).count(mark.encode()) == 1
    changed = frame.replace_mark(mark, "a" * 64)
    assert changed.size == frame.size
    assert (changed.head + changed.tail).count(b"a" * 64) == 1


def test_values_of_an_array_are_filled_in_later(tmp_path: Path) -> None:
    frame = sealed.lay_out(ARRAYS, ATTRIBUTES, STREAM)
    hashes = np.arange(64, dtype=np.uint8).reshape(2, 32)
    path = write(tmp_path / "file.h5", frame.overwrite(frame.offsets["hashes"], hashes.tobytes()))
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["hashes"][()], hashes)


def test_the_digest_is_of_the_content_by_name() -> None:
    def digest(**changed: np.ndarray) -> bytes:
        return sealed.sha256({**ARRAYS, **changed}, before=["a"])

    turned = dict(reversed(ARRAYS.items()))
    assert sealed.sha256(turned, before=["a"]) == digest()
    others = [
        sealed.sha256(ARRAYS, before=["b"]),
        sealed.sha256(ARRAYS, before=["a"], after=["c"]),
        sealed.sha256(ARRAYS, before=["a"], shapes=False),
        digest(further=np.array([1])),
        digest(names=np.array([b"\xc3\xa9", b"abd"])),
        digest(none=np.array([], np.int32)),
        digest(hashes=np.zeros((1, 64), np.uint8)),
    ]
    assert len({digest(), *others}) == 1 + len(others)
    reshaped = {**ARRAYS, "hashes": np.zeros((1, 64), np.uint8)}
    flat = [sealed.sha256(each, before=[], shapes=False) for each in (ARRAYS, reshaped)]
    assert flat[0] == flat[1]


def test_read_arrays_checks_each_field(tmp_path: Path) -> None:
    path = write(tmp_path / "file.h5", sealed.lay_out(ARRAYS, ATTRIBUTES, STREAM))
    fields = {
        "names": Field("S"),
        "columns/*": Field("fb"),
        "groups/*": Field("f"),
        "hashes": Field("u", ndim=2),
        "labels": Field("i", required=False),
    }
    with safe_h5.open_file(path) as file:
        arrays = sealed.read_arrays(file, fields)
        assert sorted(arrays) == ["columns/seen", "columns/weight", "hashes", "names"]
        np.testing.assert_array_equal(arrays["columns/weight"], ARRAYS["columns/weight"])
        columns = sealed.select_group(arrays, "columns")
        assert sorted(columns) == ["seen", "weight"]
        assert columns["seen"] is arrays["columns/seen"]
        for wrong in ({"labels": Field("i")}, {"names": Field("f")}, {"hashes": Field("u")}):
            with pytest.raises(InputError, match=next(iter(wrong))):
                sealed.read_arrays(file, wrong)


def test_attributes_have_the_types_of_their_defaults(tmp_path: Path) -> None:
    path = write(tmp_path / "file.h5", sealed.lay_out(ARRAYS, ATTRIBUTES, STREAM))
    with safe_h5.open_file(path) as file:
        defaults: dict[str, Attribute] = {"number": 0, "share": 1.0, "format": "", "lacking": 7}
        attributes = sealed.read_attributes(file, defaults)
        assert attributes == {"number": 3, "share": 0.25, "format": "é", "lacking": 7}
        with pytest.raises(InputError, match="number"):
            sealed.read_attributes(file, {"number": ""})


STEPS = ({"command": "train", "version": "1"}, {"command": "embed"})


def test_digests_of_earlier_files_stay_valid(tmp_path: Path) -> None:
    names = np.array([b"a", "ü".encode(), b"c"])
    vectors = np.arange(12, dtype=np.float32).reshape(3, 4)
    labels = np.array([1, -1, 0])
    columns = {"weight": np.array([1.0, 0.5, np.nan]), "split": np.array([b"x", b"yy", b""])}
    whole = Embeddings(
        names, vectors, labels, ("x", "y"), columns, metric="dot", space="s", history=STEPS
    )
    digests = {"embeddings": embeddings.write(tmp_path / "e.h5", whole)}
    about = SearchIndex(
        names, labels, 4, "cosine", "Flat", ("x", "y"), "s", recall=0.5, history=STEPS
    )
    digests["index"] = search_index.write(tmp_path / "i.h5", about, lambda put: put(b"faiss"))
    scores = np.array([[1.0, 0.5], [0.25, -np.inf]])
    results = Hits(names[:2], np.array([[b"a", b"b"], [b"c", b""]]), scores)
    hits.write(tmp_path / "h.h5", results, STEPS)
    with h5py.File(tmp_path / "h.h5") as file:
        digests["hits"] = file.attrs["digest"].decode()
    arrays = {"names": names, "labels": labels, "sha256": np.ones((3, 32), np.uint8)}
    digests["pack"] = pack.digest_content(arrays, {"format": "mltool-pack", "root": "é"})
    assert digests == {
        "embeddings": "d0637ce3fb250b8fbb7d1f49a2e281e3aac01ed604a39c49877d01bda7c6a029",
        "hits": "d39d89b75fe1e1d278525e64405c7c2b87d6de50a0dcf23ca3166e140eaaffee",
        "index": "7d147fa6fea6828b40de1a08c71f65931c9fe8291d377c8c3f0a7e5df36e310a",
        "pack": "a30e13498867dc0e26ae567c40e22097949ea76fa9ab1fe13f9702bffc178aa1",
    }
