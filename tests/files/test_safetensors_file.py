"""safetensors files: one byte sequence, readable by the library, and safe to open."""

import json
import os
import pickle
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors
import safetensors.numpy
import torch

from mltool.errors import InputError
from mltool.files import safetensors_file

DTYPES = [np.dtype(name) for name in safetensors_file.DTYPES.values()]
META = {"spec": {"dim": 8, "name": "é"}, "history": [{"command": "train"}]}


def example() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    arrays = {f"model.{dtype}": random.integers(0, 2, (3, 5)).astype(dtype) for dtype in DTYPES}
    arrays["scalar"] = np.array(2.5, np.float32)
    arrays["empty"] = np.empty((0, 4), np.float16)
    arrays["odd"] = random.integers(0, 9, 7).astype(np.uint8)
    arrays["é"] = random.random((2, 3, 4)).astype(np.float32)
    return arrays


def to_bytes(arrays: dict[str, np.ndarray], meta: dict) -> bytes:
    """Return the bytes of a file that is written with these arrays."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "m.safetensors"
        safetensors_file.write(path, arrays, meta=meta)
        return path.read_bytes()


def assert_equal(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        assert found[name].dtype == array.dtype
        assert found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_round_trip(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    digest = safetensors_file.write(path, example(), meta=META)
    arrays, meta = safetensors_file.read(path)
    assert_equal(arrays, example())
    assert all(array.flags.writeable for array in arrays.values())
    assert meta == {**META, "format_version": 1, "digest": digest}
    assert safetensors_file.read_meta(path) == meta
    for full in (False, True):
        safetensors_file.verify(path, full=full)


def test_no_arrays(tmp_path: Path) -> None:
    safetensors_file.write(tmp_path / "m", {}, meta={})
    arrays, meta = safetensors_file.read(tmp_path / "m")
    assert arrays == {}
    assert meta.keys() == {"format_version", "digest"}


def test_the_library_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors_file.write(path, example(), meta=META)
    assert_equal(safetensors.numpy.load_file(path), example())
    with safetensors.safe_open(path, "pt") as file:
        assert file.metadata()["format"] == "pt"
        assert json.loads(file.metadata()["mltool"])["spec"] == META["spec"]
        np.testing.assert_array_equal(file.get_tensor("é").numpy(), example()["é"])


def test_reads_what_the_library_wrote(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.numpy.save_file(example(), path, {"format": "pt"})
    arrays, meta = safetensors_file.read(path)
    assert_equal(arrays, example())
    assert meta == {}
    with pytest.raises(InputError, match="no digest"):
        safetensors_file.verify(path, full=False)


def test_same_content_same_bytes() -> None:
    forward = example()
    backward = dict(reversed(forward.items()))
    big = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in forward.items()}
    strided = forward | {"é": np.asfortranarray(forward["é"])}
    wanted = to_bytes(forward, META)
    for arrays in (backward, big, strided):
        meta = dict(reversed(META.items()))
        assert to_bytes(arrays, meta) == wanted


def test_hash_seed_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors_file.write(path, example(), meta=META)
    wanted = path.read_bytes()
    script = (
        "import sys\n"
        "from mltool.files import safetensors_file\n"
        "arrays, meta = safetensors_file.read(sys.argv[1])\n"
        "arrays = {key: arrays[key] for key in set(arrays)}\n"
        "safetensors_file.write(sys.argv[1], arrays, meta=meta)\n"
    )
    for seed in "123":
        environment = os.environ | {"PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", script, str(path)], env=environment, check=True)
        assert path.read_bytes() == wanted


def test_arrays_are_aligned(tmp_path: Path) -> None:
    data = to_bytes(example(), META)
    length = struct.unpack("<Q", data[:8])[0]
    assert length % 8 == 0
    header = json.loads(data[8 : 8 + length])
    for name, entry in header.items():
        if name != "__metadata__":
            size = example()[name].dtype.itemsize
            assert (8 + length + entry["data_offsets"][0]) % size == 0


def test_the_digest_is_of_the_content() -> None:
    def digest(arrays: dict[str, np.ndarray], meta: dict) -> object:
        data = to_bytes(arrays, meta)
        header = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])
        return json.loads(header["__metadata__"]["mltool"])["digest"]

    arrays = {"a": np.zeros(4, np.float32), "b": np.ones(4, np.float32)}
    variants = [
        (arrays, {}),
        ({"a": arrays["b"], "b": arrays["a"]}, {}),
        ({"a": arrays["a"].reshape(2, 2), "b": arrays["b"]}, {}),
        ({"a": arrays["a"].view(np.int32), "b": arrays["b"]}, {}),
        ({"c": arrays["a"], "b": arrays["b"]}, {}),
        (arrays, {"history": []}),
    ]
    assert len({digest(*variant) for variant in variants}) == len(variants)
    assert digest(arrays, {"digest": "old"}) == digest(arrays, {})


@pytest.mark.parametrize("array", [np.zeros(2, complex), np.array(["a"]), np.array([None])])
def test_types_that_are_not_written(array: np.ndarray) -> None:
    with pytest.raises(TypeError, match="weights"):
        to_bytes({"weights": array}, {})


def build(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def entry(start: object = 0, stop: object = 4, dtype: object = "F32", shape: object = (1,)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]}


HOSTILE = {
    "empty": b"",
    "short": b"\0\0\0",
    "length only": struct.pack("<Q", 2),
    "length beyond the end": build({}, length=10_000),
    "length above the cap": build({}, length=2**40),
    "length of 2**64 - 1": build({}, length=2**64 - 1),
    "no object": build([]),
    "no JSON": build(b"{nonsense}"),
    "no UTF-8": build(b'{"\xff": 1}'),
    "deep nesting": build(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "NaN": build(b'{"a": NaN}'),
    "repeated key": build(b'{"a":%s,"a":%s}' % ((json.dumps(entry()).encode(),) * 2), bytes(4)),
    "entry is a list": build({"a": []}),
    "entry is a number": build({"a": 3}),
    "metadata is a list": build({"__metadata__": []}),
    "metadata holds a number": build({"__metadata__": {"mltool": 3}}),
    "metadata holds a list": build({"__metadata__": {"mltool": "[]"}}),
    "no dtype": build({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4)),
    "bfloat16": build({"a": entry(0, 2, "BF16")}, bytes(2)),
    "dtype is a list": build({"a": entry(dtype=["F32"])}, bytes(4)),
    "unknown dtype": build({"a": entry(dtype="O")}, bytes(4)),
    "hole at the start": build({"a": entry(4, 8)}, bytes(8)),
    "hole between": build({"a": entry(), "b": entry(8, 12)}, bytes(12)),
    "hole at the end": build({"a": entry()}, bytes(8)),
    "overlap": build({"a": entry(0, 8, shape=[2]), "b": entry(4, 8)}, bytes(8)),
    "beyond the end": build({"a": entry(0, 400, shape=[100])}, bytes(4)),
    "shape bomb": build({"a": entry(0, 4 * 10**15, shape=[10**15])}, bytes(4)),
    "shape does not fit": build({"a": entry(shape=[2])}, bytes(4)),
    "negative shape": build({"a": entry(shape=[-1, -1])}, bytes(4)),
    "shape of floats": build({"a": entry(shape=[1.0])}, bytes(4)),
    "shape of bools": build({"a": entry(shape=[True])}, bytes(4)),
    "shape is text": build({"a": entry(shape="1")}, bytes(4)),
    "empty but huge": build({"a": entry(0, 0, shape=[0, 2**60, 2**60])}),
    "many dimensions": build({"a": entry(0, 4, shape=[1] * 100)}, bytes(4)),
    "negative offsets": build({"a": entry(-4, 0)}, bytes(4)),
    "offsets backwards": build({"a": entry(4, 0)}, bytes(4)),
    "one offset": build({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}}, bytes(4)),
    "huge number": build(b'{"a": ' + b"9" * 10_000 + b"}"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_headers_have_one_error(tmp_path: Path, case: str) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(HOSTILE[case])
    for read in (safetensors_file.read, safetensors_file.read_meta):
        with pytest.raises(InputError) as caught:
            read(path)
        assert str(path) in str(caught.value)
        assert "\n" not in str(caught.value)


class Evil:
    def __reduce__(self) -> tuple:
        return (os.system, ("touch canary",))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_are_named_and_not_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("model.pt").write_bytes(pickle.dumps(Evil(), protocol))
    torch.save({"weight": torch.zeros(2)}, "model.pth")
    with zipfile.ZipFile("model.zip", "w") as archive:
        archive.writestr("a", bytes(10))
    for name in ("model.pt", "model.pth", "model.zip"):
        with pytest.raises(InputError, match="is a pickle"):
            safetensors_file.read(name)
    assert not Path("canary").exists()


def test_a_header_as_long_as_a_pickle_begins(tmp_path: Path) -> None:
    path = tmp_path / "m"
    for padding in range(1024):
        safetensors_file.write(path, {}, meta={"padding": "x" * padding})
        if path.read_bytes().startswith(b"\x80\x02"):  # a length of 640 bytes
            break
    assert path.read_bytes().startswith(b"\x80\x02")
    assert safetensors_file.read_meta(path)["padding"] == "x" * padding


def test_newer_files(tmp_path: Path) -> None:
    safetensors_file.write(tmp_path / "m", {}, meta={"format_version": 2})
    with pytest.raises(InputError, match="newer mltool"):
        safetensors_file.read_meta(tmp_path / "m")


def test_truncation_and_flips_are_found(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    safetensors_file.write(path, example(), meta=META)
    whole = path.read_bytes()
    for size in (0, 1, 100, *range(len(whole) // 10, len(whole), len(whole) // 10), len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError):
            safetensors_file.verify(path, full=False)
    path.write_bytes(whole + b"\0")
    with pytest.raises(InputError):
        safetensors_file.verify(path, full=False)
    random = np.random.default_rng(0)
    for place in random.integers(len(whole), size=300):
        broken = bytearray(whole)
        broken[place] ^= 1 << random.integers(8)
        path.write_bytes(broken)
        with pytest.raises(InputError):
            safetensors_file.verify(path, full=True)
