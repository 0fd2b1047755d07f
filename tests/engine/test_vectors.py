"""Cached vectors as a source of batches: rows, columns, and runs that resume to the same bytes."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_heads import COUNT, make_head, make_plan, read, write_vectors
from tiny_runs import runtime, stopping

from mltool.engine import sources
from mltool.engine.extract import Extraction, embed_rows
from mltool.engine.loading import load
from mltool.engine.training import train
from mltool.engine.vectors import Vectors
from mltool.errors import InputError, Interrupted
from mltool.files import embeddings


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    return write_vectors(tmp_path)


def test_batches_hold_rows_as_they_are_stored(paths: list[Path]) -> None:
    stored = np.concatenate([embeddings.read(path).vectors.astype(np.float32) for path in paths])
    source = Vectors(read(paths))
    items = [(55, 3), (0, 0), (79, 9), (0, 1)]
    (batch,) = load(source, [items], workers=0)
    rows = [row for row, _ in items]
    assert batch.inputs.dtype == torch.float32
    np.testing.assert_array_equal(batch.inputs.numpy(), stored[rows])
    assert batch.rows.tolist() == rows
    assert batch.draws.tolist() == [draw for _, draw in items]
    assert batch.labels.tolist() == [row % 5 for row in rows]
    weights = np.linspace(0.5, 1.5, COUNT).astype(np.float32)[rows]
    np.testing.assert_array_equal(batch.columns["weight"].numpy(), weights)
    assert source.as_test() is source
    assert not len(next(load(source, [[]], workers=0)).inputs)


def test_rows_follow_the_list(paths: list[Path]) -> None:
    """A list in another order, or a part of one, still finds its vectors."""
    manifest = read(paths).take(np.array([70, 2, 60, 49]))
    (batch,) = load(Vectors(manifest), [[(0, 0), (1, 0), (2, 0), (3, 0)]], workers=0)
    whole = Vectors(read(paths)).stored.read(np.array([70, 2, 60, 49]))
    np.testing.assert_array_equal(batch.inputs.numpy(), whole)
    assert Vectors(manifest.take(np.array([0]))).stored.files == (str(paths[1]),)


def test_a_vector_that_is_not_finite_is_named(paths: list[Path]) -> None:
    with paths[1].open("r+b") as file:
        where = file.read().index(embeddings.read(paths[1]).vectors[8].tobytes())
        file.seek(where)
        file.write(np.float16(np.inf).tobytes())
    source = Vectors(read(paths))
    assert isinstance(source.__getitems__([(57, 0), (59, 0)]), object)
    with pytest.raises(InputError, match=r"two\.h5: the vector of 058 is not finite"):
        list(load(source, [[(3, 0), (58, 0)]], workers=0))


def test_names_stand_in_one_file_only(paths: list[Path], tmp_path: Path) -> None:
    stored = embeddings.read(paths[0])
    embeddings.write(tmp_path / "again.h5", stored.take(np.arange(5)))
    assert len(read([*paths, paths[0]])) == COUNT
    with pytest.raises(InputError, match="5 names stand for different files"):
        read([*paths, tmp_path / "again.h5"])


def test_files_of_unlike_vectors_are_no_list(paths: list[Path], tmp_path: Path) -> None:
    stored = embeddings.read(paths[0])
    names = np.array([b"x" + name for name in stored.names.tolist()])
    for change in ({"space": "other"}, {"vectors": stored.vectors[:, :4]}, {"metric": "dot"}):
        other = tmp_path / "other.h5"
        embeddings.write(other, dataclasses.replace(stored, names=names, **change))
        with pytest.raises(InputError, match="differ in"):
            Vectors(read([paths[0], other]))


def test_a_head_embeds_a_list(paths: list[Path]) -> None:
    head, manifest = make_head().eval(), read(paths)
    source = sources.open_test(manifest, head.spec)
    how = Extraction(7, 0, torch.device("cpu"), "fp32")
    found = embed_rows(head, source, how, rows=[3, 60, 61])
    stored = Vectors(manifest).stored.read(np.array([3, 60, 61]))
    with torch.no_grad():
        expected = head(torch.from_numpy(stored))
    np.testing.assert_allclose(found, expected.numpy(), atol=1e-6)


@pytest.mark.parametrize("kind", ["classes", "mined"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_run_that_was_stopped_ends_in_the_same_bytes(
    tmp_path: Path, paths: list[Path], kind: str, workers: int
) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(make_plan(paths, kind, ema=0.9), runtime(whole))
    for step in (3, 6):
        again = stopping(make_plan(paths, kind, ema=0.9), step)
        with pytest.raises(Interrupted):
            train(again, runtime(broken, resume=True, workers=workers))
    train(make_plan(paths, kind, ema=0.9), runtime(broken, resume=True, workers=workers))
    assert broken.read_bytes() == whole.read_bytes()
