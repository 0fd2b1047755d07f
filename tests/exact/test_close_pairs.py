"""All pairs above a score, against brute force, in every precision and cut."""

import numpy as np
import pytest

from mltool.errors import ResourceError
from mltool.exact.close_pairs import find_close_pairs
from mltool.exact.knn import Resources
from mltool.exact.vector_set import make_vector_sets


def make_rows(metric: str, *, count: int = 700, dim: int = 5, scale: float = 1.0):
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((count, dim)) * scale
    vectors[::7] = vectors[3]  # equal rows
    vectors[5] = 0
    names = np.arange(count).astype("S")
    return vectors, make_vector_sets((vectors, names), None, metric=metric)[0]


def score_all(vectors: np.ndarray, metric: str) -> np.ndarray:
    if metric == "euclidean":
        return -np.linalg.norm(vectors[:, None] - vectors, axis=2)
    if metric == "cosine":
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
        vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return vectors @ vectors.T


@pytest.mark.parametrize("precision", ["float64", "float32", "bfloat16"])
@pytest.mark.parametrize(
    ("metric", "scale", "min_score"),
    [
        ("cosine", 1.0, 0.9),
        ("cosine", 1.0, 0.999),
        ("cosine", 1.0, -1.0),
        ("dot", 100.0, 50_000.0),
        ("euclidean", 1e-3, -5e-4),
        ("euclidean", 1.0, 0.5),
    ],
)
def test_against_brute_force(precision: str, metric: str, scale: float, min_score: float) -> None:
    vectors, rows = make_rows(metric, scale=scale)
    scores = np.triu(score_all(vectors, metric) - min_score, 1)
    first, second = np.nonzero((scores >= 0) & np.triu(np.ones(scores.shape, bool), 1))
    sure = np.abs(scores[first, second]) > 1e-9 * scale**2
    pairs = find_close_pairs(rows, min_score=min_score, resources=Resources(precision=precision))
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    expected = set(zip(first[sure].tolist(), second[sure].tolist(), strict=True))
    assert expected <= found
    assert len(found) - len(expected) <= (~sure).sum()
    assert len(found) == len(pairs.first)
    assert (pairs.first < pairs.second).all()
    assert (np.diff(pairs.first * len(rows) + pairs.second) > 0).all()
    exact = score_all(vectors, metric)[pairs.first, pairs.second]
    np.testing.assert_allclose(pairs.scores, exact, rtol=1e-9, atol=1e-7 * scale)


def test_every_cut_gives_the_same_bits() -> None:
    _, rows = make_rows("cosine", count=900)
    one = find_close_pairs(rows, min_score=0.95, resources=Resources())
    for memory, threads in ((2**22, 1), (2**24, 4)):
        other = find_close_pairs(
            rows, min_score=0.95, resources=Resources(max_memory=memory, threads=threads)
        )
        np.testing.assert_array_equal(one.first, other.first)
        np.testing.assert_array_equal(one.second, other.second)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_more_pairs_than_memory_are_refused() -> None:
    _, rows = make_rows("cosine", count=900)
    few = Resources(max_memory=2**22, threads=1)
    with pytest.raises(ResourceError, match="raise --min-score"):
        find_close_pairs(rows, min_score=-1.0, resources=few)


@pytest.mark.parametrize("count", [0, 1])
def test_one_row_has_no_pairs(count: int) -> None:
    rows, _ = make_vector_sets((np.ones((count, 2)), np.zeros(count, "S1")), None, metric="cosine")
    assert len(find_close_pairs(rows, min_score=0.5, resources=Resources()).first) == 0
