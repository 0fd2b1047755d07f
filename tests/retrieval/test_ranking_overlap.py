"""How many nearest rows two rankings share, against scikit-learn's neighbours and sets."""

import numpy as np
import pytest
from sklearn.neighbors import NearestNeighbors

from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.retrieval.ranking_overlap import average_overlap, find_queries, list_nearest

RNG = np.random.default_rng(0)
NAMES = np.array([f"{number:02d}" for number in range(40)])


def make_embeddings(order: np.ndarray) -> Embeddings:
    return Embeddings(NAMES[order], RNG.standard_normal((len(order), 6)).astype(np.float32))


def list_by_scikit(stored: Embeddings) -> dict[bytes, set[bytes]]:
    near = NearestNeighbors(n_neighbors=11, metric="cosine").fit(stored.vectors)
    rows = near.kneighbors(stored.vectors, return_distance=False)
    return {
        name: set(stored.names[found].tolist()) - {name}
        for name, found in zip(stored.names.tolist(), rows, strict=True)
    }


def test_the_share_is_that_of_scikit_learn() -> None:
    first, second = make_embeddings(np.arange(40)), make_embeddings(RNG.permutation(40))
    hits = [
        list_nearest(each, None, find_queries(first.names, each, "x"), Resources())
        for each in (first, second)
    ]
    theirs = [list_by_scikit(each) for each in (first, second)]
    expected = np.mean([len(theirs[0][n] & theirs[1][n]) / 10 for n in first.names.tolist()])
    assert average_overlap(*hits) == pytest.approx(expected)
    assert average_overlap(hits[0], hits[0]) == 1.0


def test_short_lists_and_none() -> None:
    first = np.array([[b"a", b"b", b"c", b""], [b"", b"", b"", b""]])
    second = np.array([[b"c", b"d", b"", b""], [b"", b"", b"", b""]])
    assert average_overlap(first, second) == pytest.approx(1 / 3)
    assert np.isnan(average_overlap(first[1:], second[1:]))


def test_a_gallery_of_other_images() -> None:
    gallery = make_embeddings(np.arange(30))
    queries = Embeddings(["q", "03"], gallery.vectors[[7, 3]])
    hits = list_nearest(queries, gallery, np.arange(2), Resources())
    assert hits[0, 0] == b"07"
    assert b"03" not in hits[1]


def test_queries_that_a_model_lacks_are_named() -> None:
    with pytest.raises(InputError, match=r"few\.h5 lacks 1 of 2 queries \(zz\)"):
        find_queries(np.array([b"03", b"zz"]), make_embeddings(np.arange(9)), "few.h5")
