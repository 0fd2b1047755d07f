"""Several embeddings files read as one."""

import logging
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings, shards
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings

STEPS = ({"command": "train"}, {"command": "embed", "shard": 0}, {"command": "embed", "shard": 1})


def part(start: int, stop: int, labels: list[str] | None = None) -> Embeddings:
    vectors = np.arange(4 * start, 4 * stop, dtype=np.float32).reshape(-1, 4)
    names = [f"{row}.jpg" for row in range(start, stop)]
    columns = {"row": np.arange(start, stop), "split": ["train"] * (stop - start)}
    return Embeddings(names, vectors, labels, columns=columns, space="m", root="/images")


def write(folder: Path, *parts: Embeddings) -> list[str]:
    paths = [str(folder / f"shard-{number}.h5") for number in range(len(parts))]
    for path, one in zip(paths, parts, strict=True):
        embeddings.write(path, one)
    return paths


def test_shards_in_order_equal_the_whole(tmp_path: Path) -> None:
    labels = ["b", "a", "b", "c", "", "a", "d"]
    parts = [part(0, 3, labels[:3]), part(3, 3, []), part(3, 7, labels[3:])]
    found = shards.read_many(write(tmp_path, *parts))
    whole = part(0, 7, labels)
    np.testing.assert_array_equal(found.names, whole.names)
    np.testing.assert_array_equal(found.vectors, whole.vectors)
    texts = [found.label_names[label] if label >= 0 else "" for label in found.labels]
    assert texts == labels
    assert found.columns["row"].tolist() == list(range(7))
    assert (found.space, found.root, found.metric) == ("m", "/images", "cosine")


def test_one_file_stays_mapped(tmp_path: Path) -> None:
    found = shards.read_many(write(tmp_path, part(0, 3)))
    assert isinstance(found.vectors.base, np.memmap)


def test_opened_shards_are_the_same_but_stay_in_their_files(tmp_path: Path) -> None:
    paths = write(tmp_path, part(0, 3), part(3, 4), part(4, 9))
    opened, read = shards.open_many(paths), shards.read_many(paths)
    assert isinstance(opened.vectors, ConcatenatedRows)
    assert all(isinstance(one.base, np.memmap) for one in opened.vectors.matrices)
    np.testing.assert_array_equal(np.asarray(opened.vectors), read.vectors)
    np.testing.assert_array_equal(opened.names, read.names)
    assert opened.digest == read.digest
    assert isinstance(shards.open_many(paths[:1]).vectors.base, np.memmap)


def test_histories_and_digest(tmp_path: Path) -> None:
    parts = [replace(part(0, 2), history=STEPS[:2]), replace(part(2, 3), history=STEPS[::2])]
    paths = write(tmp_path, *parts)
    found = shards.read_many(paths)
    assert found.history == STEPS
    assert found.digest not in ("", shards.read_many(paths[::-1]).digest)


def test_files_that_do_not_fit(tmp_path: Path) -> None:
    one = part(0, 3, ["a", "b", "c"])
    others = {
        "dimensions": replace(part(3, 5), vectors=np.zeros((2, 5), np.float32)),
        "metric": replace(part(3, 5), metric="dot"),
        "space": replace(part(3, 5), space="other"),
        "more than once": part(2, 5),
        "only numbers": replace(part(3, 5), labels=np.array([0, 1])),
    }
    for message, other in others.items():
        with pytest.raises(InputError, match=message):
            shards.read_many(write(tmp_path, one, other))
    with pytest.raises(InputError, match="at least one"):
        shards.read_many([])


def test_numbers_as_labels_and_no_labels(tmp_path: Path) -> None:
    numbers = replace(part(0, 2), labels=np.array([5, 2**60]))
    found = shards.read_many(write(tmp_path, numbers, part(2, 4)))
    assert found.labels.tolist() == [5, 2**60, -1, -1]
    assert found.label_names == ()


def test_columns_that_a_file_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    paths = write(tmp_path, part(0, 2), replace(part(2, 4), columns={"row": np.arange(2, 4)}))
    with caplog.at_level(logging.WARNING):
        found = shards.read_many(paths)
    assert list(found.columns) == ["row"]
    assert "left out columns that not all files have: split" in caplog.text


def test_expand(tmp_path: Path) -> None:
    for name in ("e-10.h5", "e-2.h5", "e-1.h5", "other.txt", ".hidden.h5", "e-3.h5.partial"):
        (tmp_path / name).touch()
    folder = str(tmp_path)
    wanted = [f"{folder}/e-{number}.h5" for number in (1, 2, 10)]
    assert shards.expand(folder) == wanted
    assert shards.expand(f"{folder}/e-*.h5") == wanted
    assert shards.expand(f"{folder}/other.txt") == [f"{folder}/other.txt"]
    assert shards.expand("missing.h5") == ["missing.h5"]
    (tmp_path / "[1].h5").touch()
    assert shards.expand(f"{folder}/[1].h5") == [f"{folder}/[1].h5"]
    (tmp_path / "empty").mkdir()
    for nothing in (f"{folder}/empty", f"{folder}/none*.h5"):
        with pytest.raises(InputError, match=r"names no \.h5 file"):
            shards.expand(nothing)
