"""A student's vectors against its teacher's: accepted where declared, and only there."""

import numpy as np
import pytest

from mltool.errors import InputError
from mltool.files.embeddings import Embeddings
from mltool.retrieval.neighbours import search
from mltool.retrieval.scoring import evaluate

TEACHER, STUDENT, STRANGER = ("t" * 64, "s" * 64, "x" * 64)


def vectors(space: str, prefix: str, teacher_space: str = "", metric: str = "cosine") -> Embeddings:
    names = [f"{prefix}{row}" for row in range(6)]
    rows = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    labels = np.arange(6) % 2
    return Embeddings(names, rows, labels, space=space, teacher_space=teacher_space, metric=metric)


@pytest.mark.parametrize("turned", [False, True])
def test_a_declared_pair_in_either_order(turned: bool) -> None:
    pair = vectors(STUDENT, "q", TEACHER), vectors(TEACHER, "g")
    queries, gallery = pair[::-1] if turned else pair
    assert evaluate(queries, gallery, metrics=["precision@1"]).metrics["precision@1"] == 1
    assert search(queries, gallery, k=1).names[0, 0].decode()[1:] == "0"


@pytest.mark.parametrize(
    "gallery",
    [
        vectors(STRANGER, "g"),
        vectors(STRANGER, "g", TEACHER),  # a brother: no teacher of this one
        vectors(f"{TEACHER}/penultimate", "g"),
        vectors(TEACHER, "g", metric="euclidean"),
    ],
)
def test_others_are_refused(gallery: Embeddings) -> None:
    with pytest.raises(InputError):
        evaluate(vectors(STUDENT, "q", TEACHER), gallery, metrics=["precision@1"])


def test_without_a_declaration_it_is_refused() -> None:
    with pytest.raises(InputError, match="made by model ssssssssssss"):
        evaluate(vectors(STUDENT, "q"), vectors(TEACHER, "g"), metrics=["precision@1"])
