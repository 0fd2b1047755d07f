"""The nearest class mean against scikit-learn, and its confidence by hand."""

import numpy as np
import pytest
from sklearn.neighbors import NearestCentroid

from mltool.clusterers.nearest import nearest
from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows

RESOURCES = Resources(threads=1)


def normalize(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("seed", range(3))
def test_against_scikit_learn(metric: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows = rng.standard_normal((80, 4)) * rng.uniform(0.5, 3, (80, 1))
    labels = rng.integers(0, 5, 80) * 3 - (rng.random(80) < 0.1) * 100
    labels = np.maximum(labels, -1)  # some are unknown
    asked = rng.standard_normal((50, 4))
    found, confidence = nearest(asked, metric=metric, resources=RESOURCES, reference=(rows, labels))
    known, prepare = labels >= 0, normalize if metric == "cosine" else lambda each: each
    oracle = NearestCentroid().fit(prepare(rows[known]), labels[known])
    means = prepare(oracle.centroids_)
    distances = np.linalg.norm(prepare(asked)[:, None] - means, axis=2)
    np.testing.assert_array_equal(found, oracle.classes_[distances.argmin(axis=1)])
    if metric == "euclidean":
        np.testing.assert_array_equal(found, oracle.predict(asked))
    first, second = np.sort(distances, axis=1)[:, :2].T
    np.testing.assert_allclose(confidence, 1 - first / second, atol=1e-7)


def test_one_class_is_sure_and_a_tie_goes_to_the_lower() -> None:
    rows = np.array([[1.0, 0.0], [0.0, 1.0]])
    found, confidence = nearest(
        np.ones((1, 2)), metric="cosine", resources=RESOURCES, reference=(rows, np.array([7, 2]))
    )
    assert (found.tolist(), confidence.tolist()) == ([2], [0.0])
    found, confidence = nearest(
        np.ones((1, 2)), metric="cosine", resources=RESOURCES, reference=(rows, np.array([4, 4]))
    )
    assert (found.tolist(), confidence.tolist()) == ([4], [1.0])


def test_shards_are_one_reference() -> None:
    rng = np.random.default_rng(0)
    rows, labels = rng.standard_normal((30, 3)), rng.integers(0, 4, 30)
    shards = ConcatenatedRows([rows[:7], rows[7:]])
    for one, other in zip(
        *(
            nearest(rows, metric="cosine", resources=RESOURCES, reference=(each, labels))
            for each in (rows, shards)
        ),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_a_reference_needs_labels() -> None:
    with pytest.raises(InputError, match="has no labels"):
        nearest(
            np.eye(2), metric="cosine", resources=RESOURCES, reference=(np.eye(2), np.full(2, -1))
        )
