"""Files of vectors with parts: bounds of columns in `/parts`, absent where there are none."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings, shards
from mltool.files.describe import read_facts
from mltool.files.embeddings import Embeddings
from mltool.files.embeddings_writer import EmbeddingsWriter

VECTORS = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
NAMES = list("abcde")
PARTS = ((0, 4), (4, 8), (8, 12))


def test_bounds_come_back(tmp_path: Path) -> None:
    path = tmp_path / "parts.h5"
    embeddings.write(path, Embeddings(NAMES, VECTORS, parts=PARTS))
    assert embeddings.read(path).parts == PARTS
    embeddings.verify(path, full=True)
    assert read_facts(str(path))["parts"] == [[0, 4], [4, 8], [8, 12]]
    with h5py.File(path) as file:
        assert file["parts"][:].tolist() == [[0, 4], [4, 8], [8, 12]]


def test_a_vector_without_parts_is_the_usual_file(tmp_path: Path) -> None:
    embeddings.write(tmp_path / "1.h5", Embeddings(NAMES, VECTORS))
    embeddings.write(tmp_path / "2.h5", Embeddings(NAMES, VECTORS, parts=()))
    assert (tmp_path / "1.h5").read_bytes() == (tmp_path / "2.h5").read_bytes()
    with h5py.File(tmp_path / "1.h5") as file:
        assert "parts" not in file
    assert "parts" not in read_facts(str(tmp_path / "1.h5"))


def test_the_digest_covers_the_bounds(tmp_path: Path) -> None:
    digests = {
        embeddings.write(tmp_path / "x.h5", Embeddings(NAMES, VECTORS, parts=parts))
        for parts in ((), PARTS, ((0, 4), (4, 12)), ((0, 4), (4, 8), (8, 11)))
    }
    assert len(digests) == 4


def test_the_writer_writes_the_same(tmp_path: Path) -> None:
    whole, piece = tmp_path / "whole.h5", tmp_path / "piece.h5"
    digest = embeddings.write(whole, Embeddings(NAMES, VECTORS, parts=PARTS))
    with EmbeddingsWriter(piece, names=np.array(NAMES, "S"), dim=12, parts=PARTS) as writer:
        writer.append(VECTORS)
        assert writer.finish() == digest
    assert whole.read_bytes() == piece.read_bytes()


@pytest.mark.parametrize("parts", [((0, 13),), ((-1, 3),), ((4, 4),), ((0, 4), (8, 6))])
def test_bounds_outside_the_vector(parts: tuple[tuple[int, int], ...]) -> None:
    with pytest.raises(InputError, match="embed again"):
        Embeddings(NAMES, VECTORS, parts=parts)


def test_a_table_of_another_width(tmp_path: Path) -> None:
    path = tmp_path / "wide.h5"
    embeddings.write(path, Embeddings(NAMES, VECTORS))
    with h5py.File(path, "a") as file:
        file["parts"] = np.zeros((2, 3), np.int64)
    with pytest.raises(InputError, match="3 columns instead of 2"):
        embeddings.read(path)


def test_shards_keep_their_bounds_and_must_agree(tmp_path: Path) -> None:
    paths = [str(tmp_path / f"{number}.h5") for number in range(3)]
    whole = Embeddings(NAMES, VECTORS, parts=PARTS)
    for path, rows in zip(paths, np.array_split(np.arange(5), 2), strict=False):
        embeddings.write(path, whole.take(rows))
    assert shards.read_many(paths[:2]).parts == PARTS
    embeddings.write(paths[2], Embeddings(["f"], VECTORS[:1]))
    with pytest.raises(InputError, match="differ in parts"):
        shards.read_many(paths)
