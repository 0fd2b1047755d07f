"""Pairs of near duplicates and their groups, against scipy and by hand."""

import numpy as np
import pytest
from scipy.sparse.csgraph import connected_components

from mltool.errors import ResourceError
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.retrieval.duplicates import (
    find_image_duplicates,
    find_vector_duplicates,
    number_groups,
)
from mltool.retrieval.fingerprints import Fingerprints

RESOURCES = Resources(threads=1)


@pytest.mark.parametrize("seed", range(5))
def test_groups_are_connected_components_by_their_lowest_row(seed: int) -> None:
    rng = np.random.default_rng(seed)
    adjacent = np.triu(rng.random((30, 30)) < 0.04, 1)
    first, second = np.nonzero(adjacent)
    groups = number_groups(30, first, second)
    _, component = connected_components(adjacent, directed=False)
    order = list(dict.fromkeys(component[first].tolist()))
    assert groups.tolist() == [order.index(each) for each in component[first]]
    lowest = [first[groups == group].min() for group in range(len(order))]
    assert lowest == sorted(lowest)


def test_vectors_by_their_metric() -> None:
    vectors = np.array([[0.0, 0.0], [0.1, 0.0], [5.0, 0.0], [5.0, 0.1], [0.1, 0.1]])
    rows = Embeddings(list("abcde"), vectors, metric="euclidean")
    pairs = find_vector_duplicates(rows, min_score=-0.11, resources=RESOURCES)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        (0, 1),
        (1, 4),
        (2, 3),
    ]
    assert pairs.groups.tolist() == [0, 0, 1]
    assert pairs.count_surplus() == 3
    np.testing.assert_allclose(pairs.scores, -0.1, atol=1e-7)
    assert pairs.same is None


def test_pixels_decide_where_thumbnails_cannot() -> None:
    rng = np.random.default_rng(0)
    thumbnails = np.zeros((6, 1024), np.float16)
    thumbnails[1] = rng.standard_normal(1024)
    thumbnails[4] = thumbnails[1]
    digests = np.array([b"x", b"p", b"x", b"y", b"q", b"x"], "S32")
    prints = Fingerprints(digests, thumbnails, ())
    pairs = find_image_duplicates(prints, min_score=0.9, resources=RESOURCES)
    assert list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)) == [
        (0, 2),
        (0, 5),
        (1, 4),
        (2, 5),
    ]
    assert pairs.same.tolist() == [True, True, False, True]
    np.testing.assert_allclose(pairs.scores, 1.0, atol=1e-12)
    assert pairs.groups.tolist() == [0, 0, 1, 0]
    blank = Fingerprints(np.full(1100, b"x", "S32"), np.zeros((1100, 1024), np.float16), ())
    few = Resources(max_memory=2**25, threads=1)
    with pytest.raises(ResourceError, match="one colour"):
        find_image_duplicates(blank, min_score=0.9, resources=few)


def test_nothing_close_is_an_empty_answer() -> None:
    pairs = find_vector_duplicates(
        Embeddings(list("ab"), np.eye(2)), min_score=0.5, resources=RESOURCES
    )
    assert (len(pairs), pairs.count_surplus()) == (0, 0)
