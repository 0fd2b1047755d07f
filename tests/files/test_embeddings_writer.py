"""Writing for hours: whatever stops the writer, the next one ends with the same bytes."""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TypedDict

import numpy as np
import pytest

from mltool.errors import InputError, NumericError, ResourceError
from mltool.files import embeddings, embeddings_writer
from mltool.files.embeddings import Embeddings
from mltool.files.embeddings_writer import EmbeddingsWriter
from mltool.files.history import History

COUNT, DIM = 9000, 8
VECTORS = np.random.default_rng(0).standard_normal((COUNT, DIM)).astype(np.float32)


class Facts(TypedDict, total=False):
    names: np.ndarray
    labels: np.ndarray
    label_names: tuple[str, ...]
    columns: dict[str, np.ndarray]
    metric: str
    root: str
    space: str
    history: History


FACTS: Facts = {
    "names": np.array([b"image %d" % number for number in range(COUNT)]),
    "labels": np.arange(COUNT) % 2,
    "label_names": ("a", "b"),
    "columns": {"z": np.arange(COUNT), "a": np.arange(COUNT) % 2 == 0},
    "metric": "euclidean",
    "root": "/data/images",
    "history": ({"command": "embed", "settings": {"scales": [1]}},),
}


@pytest.fixture(scope="module")
def wanted(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("wanted") / "e.h5"
    embeddings.write(path, Embeddings(vectors=VECTORS, **FACTS))
    return path.read_bytes()


def test_gives_the_bytes_of_write(tmp_path: Path, wanted: bytes) -> None:
    path = tmp_path / "e.h5"
    with EmbeddingsWriter(path, dim=DIM, **FACTS) as writer:
        for start in range(0, COUNT, 700):
            assert writer.rows_done == start
            writer.append(VECTORS[start : start + 700])
            assert not path.exists()
        digest = writer.finish()
    assert path.read_bytes() == wanted
    assert os.listdir(tmp_path) == ["e.h5"]
    assert embeddings.read(path).digest == digest


def test_float16_is_rounded_and_checked(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    with EmbeddingsWriter(path, dim=DIM, dtype="float16", **FACTS) as writer:
        writer.append(VECTORS)
        writer.finish()
    found = embeddings.read(path).vectors
    assert found.dtype == np.float16
    np.testing.assert_array_equal(found, VECTORS.astype(np.float16))
    large = VECTORS[:10].copy()
    large[3] = 1e6
    with (
        EmbeddingsWriter(path, dim=DIM, dtype="float16", **FACTS) as writer,
        pytest.raises(NumericError, match="float16 vector of image 3 is not finite"),
    ):
        writer.append(large)


def test_values_that_are_not_finite(tmp_path: Path) -> None:
    rows = VECTORS[:100].copy()
    rows[42, 1] = np.nan
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(VECTORS[:50])
        with pytest.raises(NumericError, match="image 92"):
            writer.append(rows)
        assert writer.rows_done == 50


def test_skipped_images_are_not_in_the_file(tmp_path: Path) -> None:
    keep = np.random.default_rng(1).random(COUNT) < 0.9
    keep[:20] = False
    rows = VECTORS.copy()
    rows[~keep] = np.inf  # what a failed image leaves behind
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(rows[:20], valid=keep[:20])
        writer.append(rows[20:4000], valid=keep[20:4000])
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, resume=True, **FACTS) as writer:
        assert writer.rows_done == 4000
        writer.append(rows[4000:], valid=keep[4000:])
        np.testing.assert_array_equal(writer.skip_mask(), ~keep)
        writer.finish()
    embeddings.write(tmp_path / "kept.h5", Embeddings(vectors=VECTORS, **FACTS), keep=keep)
    assert (tmp_path / "e.h5").read_bytes() == (tmp_path / "kept.h5").read_bytes()
    assert sorted(os.listdir(tmp_path)) == ["e.h5", "kept.h5"]
    embeddings.verify(tmp_path / "e.h5", full=True)


def test_nothing_left_and_nothing_given(tmp_path: Path) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(VECTORS, valid=np.zeros(COUNT, bool))
        writer.finish()
    assert len(embeddings.read(tmp_path / "e.h5")) == 0
    with EmbeddingsWriter(tmp_path / "e.h5", names=np.empty(0, "S1"), dim=DIM) as writer:
        assert len(writer.skip_mask()) == 0
        writer.finish()
    assert embeddings.read(tmp_path / "e.h5").vectors.shape == (0, DIM)
    embeddings.verify(tmp_path / "e.h5", full=True)


def test_rows_that_do_not_fit(tmp_path: Path) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        with pytest.raises(ValueError):
            writer.append(VECTORS[:, :4])
        with pytest.raises(ValueError):
            writer.append(np.zeros((COUNT + 1, DIM), np.float32))
        writer.append(VECTORS[:-1])
        with pytest.raises(ValueError, match="8999 of 9000"):
            writer.finish()


@pytest.mark.parametrize("rows", [0, 1, 4096, COUNT])
def test_resume(tmp_path: Path, wanted: bytes, rows: int) -> None:
    path = tmp_path / "e.h5"
    with EmbeddingsWriter(path, dim=DIM, **FACTS) as writer:
        writer.append(VECTORS[:rows])
    assert os.listdir(tmp_path) == ["e.h5.partial"]
    with EmbeddingsWriter(path, dim=DIM, resume=True, **FACTS) as writer:
        assert writer.rows_done == rows
        writer.append(VECTORS[rows:])
        writer.finish()
    assert path.read_bytes() == wanted
    assert os.listdir(tmp_path) == ["e.h5"]


def test_without_resume_it_starts_over(tmp_path: Path, wanted: bytes) -> None:
    path = tmp_path / "e.h5"
    for _ in range(2):
        with EmbeddingsWriter(path, dim=DIM, **FACTS) as writer:
            assert writer.rows_done == 0
            writer.append(VECTORS[:100])
    embeddings_writer.discard(path)
    assert os.listdir(tmp_path) == []


def test_resume_without_a_partial_starts(tmp_path: Path) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, resume=True, **FACTS) as writer:
        assert writer.rows_done == 0


def test_killed_between_sealing_and_renaming(
    tmp_path: Path, wanted: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "e.h5"

    def die(*paths: object) -> None:
        raise KeyboardInterrupt

    with EmbeddingsWriter(path, dim=DIM, **FACTS) as writer, monkeypatch.context() as patched:
        writer.append(VECTORS)
        patched.setattr("mltool.files.atomic.publish", die)
        with pytest.raises(KeyboardInterrupt):
            writer.finish()
    assert (tmp_path / "e.h5.partial").read_bytes() == wanted
    with EmbeddingsWriter(path, dim=DIM, resume=True, **FACTS) as writer:
        assert writer.rows_done == COUNT
        writer.finish()
    assert path.read_bytes() == wanted


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metric": "dot"}, 'metric: "euclidean" -> "dot"'),
        ({"space": "x"}, 'space: "" -> "x"'),
        ({"names": np.char.add(FACTS["names"], b"x")}, "names: "),
        ({"labels": np.zeros(COUNT, np.int64)}, "labels: "),
        ({"columns": {}}, "columns/z: "),
        (
            {"history": ({"command": "embed", "settings": {"scales": [1, 2]}},)},
            r"history.settings.scales: \[1\] -> \[1,2\]",
        ),
    ],
)
def test_another_run_is_not_continued(tmp_path: Path, change: Facts, message: str) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(VECTORS[:100])
    before = (tmp_path / "e.h5.partial").read_bytes()
    facts: Facts = {**FACTS, **change}
    with pytest.raises(InputError, match=message):
        EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, resume=True, **facts)
    with pytest.raises(InputError, match="dim: 8 -> 9"):
        EmbeddingsWriter(tmp_path / "e.h5", dim=9, resume=True, **FACTS)
    with pytest.raises(InputError, match='dtype: "float32" -> "float16"'):
        EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, dtype="float16", resume=True, **FACTS)
    assert (tmp_path / "e.h5.partial").read_bytes() == before


def test_a_damaged_partial_is_not_continued(tmp_path: Path) -> None:
    partial = tmp_path / "e.h5.partial"
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(VECTORS[:100])
    whole = partial.read_bytes()
    flipped = bytearray(whole)
    flipped[2000] ^= 1
    counters = 2 * embeddings_writer.COUNTER.size
    no_counter = whole[:-counters] + bytes(counters)
    for data in (
        b"",
        whole[:100],
        whole[: len(whole) // 2],
        whole[:-counters],
        no_counter,
        flipped,
    ):
        partial.write_bytes(data)
        with pytest.raises(InputError, match="is damaged"):
            EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, resume=True, **FACTS)


def test_one_torn_counter_loses_little(tmp_path: Path, wanted: bytes) -> None:
    path, partial = tmp_path / "e.h5", tmp_path / "e.h5.partial"
    with EmbeddingsWriter(path, dim=DIM, **FACTS) as writer:
        for rows in (100, 200, 300):
            writer.append(VECTORS[rows - 100 : rows])
            writer.commit()
    whole, size = partial.read_bytes(), embeddings_writer.COUNTER.size
    done = set()
    for place in (-size, -2 * size):
        torn = bytearray(whole)
        torn[place + 9] ^= 0xFF
        partial.write_bytes(torn)
        with EmbeddingsWriter(path, dim=DIM, resume=True, **FACTS) as writer:
            done.add(writer.rows_done)
    assert done == {200, 300}
    partial.write_bytes(whole)
    with EmbeddingsWriter(path, dim=DIM, resume=True, **FACTS) as writer:
        writer.append(VECTORS[300:])
        writer.finish()
    assert path.read_bytes() == wanted


def test_the_space_is_reserved_at_once(tmp_path: Path, wanted: bytes) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS):
        found = (tmp_path / "e.h5.partial").stat()
    assert found.st_blocks * 512 >= len(wanted)
    with pytest.raises(ResourceError, match="bytes, but"):
        EmbeddingsWriter(tmp_path / "e.h5", names=np.array([b"a"]), dim=2**50)


def test_an_unfinished_file_is_not_read(tmp_path: Path) -> None:
    with EmbeddingsWriter(tmp_path / "e.h5", dim=DIM, **FACTS) as writer:
        writer.append(VECTORS)
    for read in (embeddings.read, lambda path: embeddings.verify(path, full=False)):
        with pytest.raises(InputError, match="not finished"):
            read(tmp_path / "e.h5.partial")


def test_the_mode_and_the_link_of_the_output(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    real, link = tmp_path / "there/real.h5", tmp_path / "e.h5"
    real.write_bytes(b"old")
    real.chmod(0o640)
    link.symlink_to(real)
    with EmbeddingsWriter(link, dim=DIM, **FACTS) as writer:
        writer.append(VECTORS)
        writer.finish()
    assert link.is_symlink()
    assert embeddings.read(link).root == FACTS["root"]  # relative to where the file really is
    assert real.stat().st_mode & 0o777 == 0o640
    assert os.listdir(tmp_path / "there") == ["real.h5"]


CHILD = """
import resource, sys, time
import numpy as np
from mltool.errors import MltoolError
from mltool.files import atomic
from mltool.files.embeddings_writer import EmbeddingsWriter
path, pause, limit = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
if limit >= 0:
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
vectors = np.random.default_rng(0).standard_normal((3000, 8)).astype(np.float32)
names = np.array([b"%d" % number for number in range(3000)])
try:
    with atomic.claim(path), EmbeddingsWriter(path, names=names, dim=8, resume=True) as writer:
        print(writer.rows_done, flush=True)
        for start in range(writer.rows_done, 3000, 100):
            rows = vectors[start : start + 100]
            valid = np.arange(start, start + len(rows)) % 1000 != int(sys.argv[4])
            writer.append(rows, valid=valid)
            writer.commit()
            time.sleep(pause)
        writer.finish()
except MltoolError as error:
    print(error)
    sys.exit(error.exit_code)
"""


def run_child(
    path: Path, *, pause: float = 0, limit: int = -1, skip: int = -1
) -> subprocess.CompletedProcess:
    command = [sys.executable, "-c", CHILD, *map(str, (path, pause, limit, skip))]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.mark.parametrize("skip", [-1, 500])
def test_kill_at_any_moment_then_resume(tmp_path: Path, skip: int) -> None:
    reference, path = tmp_path / "reference.h5", tmp_path / "e.h5"
    assert run_child(reference, skip=skip).returncode == 0
    wanted = reference.read_bytes()
    moments, resumed = random.Random(skip), []
    for _ in range(12):
        command = [sys.executable, "-c", CHILD, str(path), "0.005", "-1", str(skip)]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        resumed.append(int(writer.stdout.readline()))
        time.sleep(moments.uniform(0, 0.12))
        writer.kill()
        writer.communicate()
        if path.exists():
            embeddings.verify(path, full=True)
            path.unlink()
    assert any(resumed), "no run went on from another, so nothing was shown"
    assert run_child(path, skip=skip).returncode == 0
    assert path.read_bytes() == wanted
    assert sorted(os.listdir(tmp_path)) == ["e.h5", "reference.h5"]


def test_a_signal_saves_through_the_context(tmp_path: Path) -> None:
    path = tmp_path / "e.h5"
    command = [sys.executable, "-c", CHILD, str(path), "0.02", "-1", "-1"]
    writer = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert writer.stdout is not None
    assert writer.stdout.readline() == "0\n"
    time.sleep(0.2)
    writer.send_signal(signal.SIGINT)
    writer.communicate()
    assert os.listdir(tmp_path) == ["e.h5.partial"]
    done = run_child(path)
    assert int(done.stdout) > 0


def test_disk_full_is_exit_6_at_every_size(tmp_path: Path) -> None:
    reference, path = tmp_path / "reference.h5", tmp_path / "e.h5"
    assert run_child(reference).returncode == 0
    size = reference.stat().st_size
    path.write_bytes(b"old")
    for part in (0, 0.01, 0.5, 0.9, 0.9999):
        done = run_child(path, limit=int(part * size))
        assert done.returncode == 6, (done.stdout, done.stderr)
        assert "e.h5" in done.stdout
        assert path.read_bytes() == b"old"
        assert sorted(os.listdir(tmp_path)) == ["e.h5", "reference.h5"]
    assert run_child(path).returncode == 0
    assert path.read_bytes() == reference.read_bytes()
