"""Files of several views of each image, and of a student that declares its teacher."""

from pathlib import Path

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files import embeddings
from mltool.files.describe import read_facts
from mltool.files.embeddings import Embeddings
from mltool.files.embeddings_writer import EmbeddingsWriter
from mltool.files.lists import image_lists

VECTORS = np.random.default_rng(0).normal(size=(5, 12)).astype(np.float32)
NAMES = list("abcde")


def test_views_are_read_by_those_who_know_them(tmp_path: Path) -> None:
    path = tmp_path / "views.h5"
    embeddings.write(path, Embeddings(NAMES, VECTORS, views=3))
    found = embeddings.read_header(path)
    assert found.views == 3
    np.testing.assert_array_equal(found.vectors, VECTORS)
    with pytest.raises(InputError, match="3 views of each image"):
        embeddings.read(path)
    embeddings.verify(path, full=True)
    assert (read_facts(str(path))["views"], read_facts(str(path))["dim"]) == (3, 4)
    assert image_lists.read(str(path)).names.tolist() == [n.encode() for n in NAMES]


def test_one_view_is_the_usual_file(tmp_path: Path) -> None:
    first, second = tmp_path / "1.h5", tmp_path / "2.h5"
    embeddings.write(first, Embeddings(NAMES, VECTORS))
    embeddings.write(second, Embeddings(NAMES, VECTORS, views=1, teacher_space=""))
    assert first.read_bytes() == second.read_bytes()
    assert embeddings.read(first).views == 1


@pytest.mark.parametrize("views", [0, -1, 5, 24])
def test_views_that_do_not_divide_the_columns(views: int) -> None:
    with pytest.raises(InputError, match="views"):
        Embeddings(NAMES, VECTORS, views=views)


def test_the_writer_writes_the_same(tmp_path: Path) -> None:
    whole, piece = tmp_path / "whole.h5", tmp_path / "piece.h5"
    digest = embeddings.write(whole, Embeddings(NAMES, VECTORS, views=2, teacher_space="x" * 64))
    names = np.array(NAMES, "S")
    with EmbeddingsWriter(piece, names=names, dim=12, views=2, teacher_space="x" * 64) as writer:
        writer.append(VECTORS)
        assert writer.finish() == digest
    assert whole.read_bytes() == piece.read_bytes()
    assert embeddings.read_header(piece).teacher_space == "x" * 64
