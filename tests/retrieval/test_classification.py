"""Classification of queries by a labelled gallery, against scikit-learn."""

import logging
from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import Normalizer, StandardScaler

from mltool.errors import InputError, ResourceError, UsageError
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.retrieval import classification
from mltool.retrieval.classification import take_vote
from mltool.retrieval.scoring import evaluate

TEXTS = np.array(["b", "a", "10", "9", "c"])  # not in the order of their texts


def make(count: int, seed: int, prefix: str, metric: str = "cosine", dim: int = 6) -> Embeddings:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, len(TEXTS), count)
    centres = np.random.default_rng(9).standard_normal((len(TEXTS), dim))
    vectors = centres[labels] + 0.9 * generator.standard_normal((count, dim))
    names = [f"{prefix}{row:04}" for row in range(count)]
    return Embeddings(names, vectors.astype("f"), TEXTS[labels].tolist(), metric=metric)


def texts_of(of: Embeddings) -> np.ndarray:
    return np.array([of.label_names[label] for label in of.labels])


def accuracy(metric: str, queries: Embeddings, gallery: Embeddings, **options) -> float:
    return evaluate(queries, gallery, metrics=[metric], **options).metrics[metric]


@pytest.mark.parametrize("k", [1, 2, 4, 9])
@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_knn_is_that_of_scikit_learn(k: int, metric: str) -> None:
    queries, gallery = make(301, 0, "q", metric), make(199, 1, "g", metric)
    oracle = KNeighborsClassifier(k, metric=metric, algorithm="brute")
    oracle.fit(gallery.vectors, texts_of(gallery))
    expected = oracle.score(queries.vectors, texts_of(queries))
    assert accuracy(f"knn-accuracy@{k}", queries, gallery) == pytest.approx(expected, abs=1e-12)


def test_five_neighbors_vote_unless_said() -> None:
    queries, gallery = make(301, 0, "q"), make(199, 1, "g")
    values = [accuracy(name, queries, gallery) for name in ("knn-accuracy", "knn-accuracy@5")]
    assert values[0] == values[1]


@pytest.mark.parametrize("metric", ["cosine", "euclidean"])
def test_linear_is_that_of_scikit_learn(metric: str) -> None:
    queries, gallery = make(301, 0, "q", metric), make(199, 1, "g", metric)
    steps = [Normalizer()] if metric == "cosine" else []
    oracle = make_pipeline(*steps, StandardScaler(), LogisticRegression(max_iter=1000))
    oracle.fit(gallery.vectors.astype(np.float64), texts_of(gallery))
    expected = oracle.score(queries.vectors.astype(np.float64), texts_of(queries))
    assert 0.4 < expected < 0.95
    assert accuracy("linear-accuracy", queries, gallery) == pytest.approx(expected, abs=0.004)


def test_a_vote_that_ties_goes_to_the_first_class() -> None:
    rows = np.array([[2, 1, 1, 2], [3, 0, 2, 1], [4, 4, 0, -1], [-1, -1, -1, -1], [-1, 3, -1, -1]])
    assert take_vote(rows).tolist() == [1, 0, 4, -1, 3]
    assert take_vote(np.zeros((0, 3), np.int64)).tolist() == []


def test_votes_of_many_rows() -> None:
    votes = np.random.default_rng(0).integers(0, 4, (200, 7))
    assert take_vote(votes).tolist() == [int(np.bincount(row).argmax()) for row in votes]


def test_what_has_no_label_teaches_nothing() -> None:
    queries, gallery = make(80, 0, "q"), make(60, 1, "g")
    blank = np.arange(60) % 3 == 0
    some = replace(gallery, labels=np.where(blank, -1, gallery.labels))
    for metric in ("knn-accuracy@3", "linear-accuracy"):
        assert accuracy(metric, queries, some) == accuracy(metric, queries, gallery.take(~blank))


def test_a_query_of_an_unknown_class_has_no_value() -> None:
    queries, gallery = make(80, 0, "q"), make(60, 1, "g")
    seen = gallery.take(texts_of(gallery) != "9")
    report = evaluate(queries, seen, metrics=["knn-accuracy", "linear-accuracy"])
    for values in report.per_query.values():
        assert (np.isnan(values) == (texts_of(queries) == "9")).all()
    assert report.counts["without_positives"] == int((texts_of(queries) == "9").sum())


def test_a_query_does_not_vote_for_itself() -> None:
    both = make(60, 1, "g")
    oracle = KNeighborsClassifier(3, metric="cosine", algorithm="brute")
    told = [
        oracle.fit(np.delete(both.vectors, row, 0), np.delete(texts_of(both), row)).predict(
            both.vectors[row : row + 1]
        )[0]
        for row in range(60)
    ]
    expected = float(np.mean(np.array(told) == texts_of(both)))
    assert accuracy("knn-accuracy@3", both, both) == pytest.approx(expected)
    with pytest.raises(InputError, match="60 queries are in the gallery too"):
        evaluate(both, both, metrics=["linear-accuracy"])
    evaluate(both, both, metrics=["linear-accuracy"], keep_self=True)


def test_what_cannot_be_classified() -> None:
    queries, gallery = make(20, 0, "q"), make(12, 1, "g")
    with pytest.raises(InputError, match="needs 13 labelled gallery rows, but there are 12"):
        evaluate(queries, gallery, metrics=["knn-accuracy@13"])
    one = gallery.take(texts_of(gallery) == "a")
    with pytest.raises(InputError, match="the gallery has less than two"):
        evaluate(queries, one, metrics=["linear-accuracy"])
    with pytest.raises(ResourceError, match="raise --max-memory"):
        evaluate(queries, gallery, metrics=["linear-accuracy"], resources=Resources(1000))
    with pytest.raises(UsageError, match="give a gallery"):
        evaluate(queries, metrics=["knn-accuracy"])
    with pytest.raises(UsageError, match="no metric 'knn-acuracy'"):
        evaluate(queries, gallery, metrics=["knn-acuracy"])
    with pytest.raises(UsageError, match="no metric 'knn-accuracy@0'"):
        evaluate(queries, gallery, metrics=["knn-accuracy@0"])


def test_no_convergence_is_said(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(classification, "MAX_ITERATIONS", 2)
    with caplog.at_level(logging.WARNING):
        evaluate(make(20, 0, "q"), make(60, 1, "g"), metrics=["linear-accuracy"])
    assert "no convergence within 2 iterations" in caplog.text
