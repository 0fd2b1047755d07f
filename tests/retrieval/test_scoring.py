"""`evaluate` against pytorch-metric-learning and a plain loop, and its rules for odd data."""

import logging

import numpy as np
import pytest
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

from mltool.errors import InputError, UsageError
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.retrieval.scoring import average_by_class, evaluate, score

ALL = ("precision@1", "r_precision", "map@r", "map", "mrr")
PML = {
    "precision@1": "precision_at_1",
    "r_precision": "r_precision",
    "map@r": "mean_average_precision_at_r",
    "map": "mean_average_precision",
    "mrr": "mean_reciprocal_rank",
}


def clustered(count, classes, dim, seed, noise=1.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, count)
    vectors = rng.standard_normal((classes, dim))[labels]
    vectors = vectors + noise * rng.standard_normal((count, dim))
    return vectors.astype(np.float32), labels


def embeddings(vectors, labels, prefix="n", **further):
    names = [f"{prefix}{number:04d}" for number in range(len(vectors))]
    return Embeddings(names, vectors, labels, **further)


@pytest.mark.parametrize("seed", range(4))
def test_pml_gives_the_same_all_against_all(seed):
    vectors, labels = clustered(300, 40, 16, seed)
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors))
    theirs = AccuracyCalculator(include=tuple(PML.values()), k=None).get_accuracy(
        unit, torch.from_numpy(labels)
    )
    ours = evaluate(embeddings(vectors, labels), metrics=ALL).metrics
    for name, other in PML.items():
        assert ours[name] == pytest.approx(theirs[other], rel=1e-6)


def test_pml_gives_the_same_for_queries_and_gallery():
    vectors, labels = clustered(400, 30, 16, 5)
    unit = torch.nn.functional.normalize(torch.from_numpy(vectors))
    theirs = AccuracyCalculator(include=tuple(PML.values()), k=None).get_accuracy(
        unit[:100], torch.from_numpy(labels[:100]), unit[100:], torch.from_numpy(labels[100:])
    )
    queries = embeddings(vectors[:100], labels[:100], "q")
    gallery = embeddings(vectors[100:], labels[100:], "g")
    report = evaluate(queries, gallery, metrics=ALL)
    for name, other in PML.items():
        assert report.metrics[name] == pytest.approx(theirs[other], rel=1e-6)
    assert report.counts["self_removed"] == 0
    roles = embeddings(
        vectors,
        labels,
        columns={"is_query": np.arange(400) < 100, "is_gallery": np.arange(400) >= 100},
    )
    assert evaluate(roles, metrics=ALL).metrics == report.metrics


def test_counts_and_lone_queries():
    vectors, labels = clustered(60, 10, 8, 0)
    labels[0], labels[1:4] = 99, -1
    report = evaluate(embeddings(vectors, labels), metrics=ALL)
    alone = 1 + 3 + sum(np.count_nonzero(labels == c) == 1 for c in range(10))
    assert report.counts == {
        "queries": 60,
        "without_positives": alone,
        "gallery": 60,
        "self_removed": 60,
        "ties": 0,
        "classes": len(set(labels.tolist()) - {-1}),
    }
    assert np.isnan(report.per_query["map@r"][:4]).all()
    defined = report.per_query["map@r"][report.relevant > 0]
    assert report.metrics["map@r"] == pytest.approx(defined.mean())


def test_recall_at_k_by_a_loop():
    vectors, labels = clustered(80, 12, 6, 1)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    similarity = unit @ unit.T
    np.fill_diagonal(similarity, -9)
    for k in (1, 3, 1000):
        hits = [
            (labels[np.argsort(-row)[: min(k, 79)]] == label).any()
            for row, label in zip(similarity, labels, strict=True)
            if np.count_nonzero(labels == label) > 1
        ]
        found = evaluate(embeddings(vectors, labels), metrics=[f"recall@{k}"])
        assert found.metrics[f"recall@{k}"] == pytest.approx(np.mean(hits))


def test_the_order_of_metrics_is_the_order_asked_for():
    vectors, labels = clustered(50, 5, 4, 2)
    asked = ["nmi", "map", "precision@1", "f1", "recall@2"]
    assert list(evaluate(embeddings(vectors, labels), metrics=asked).metrics) == asked


def test_self_is_left_out_by_name_and_not_by_position():
    vectors = np.repeat(np.eye(3, dtype=np.float32), 2, axis=0)
    queries = Embeddings(["a", "b", "c", "d", "e", "f"], vectors, [0, 0, 1, 1, 2, 2])
    order = np.array([5, 3, 1, 0, 2, 4])
    gallery = Embeddings(queries.names[order], vectors[order], queries.labels[order])
    report = evaluate(queries, gallery, metrics=["precision@1"])
    assert report.counts["self_removed"] == 6
    assert report.metrics["precision@1"] == 1.0
    kept = evaluate(queries, gallery, metrics=["precision@1"], keep_self=True)
    assert kept.counts["self_removed"] == 0
    assert (kept.relevant == 2).all()


def test_ties_are_broken_by_name_and_counted():
    # the query's one relevant row ties with an irrelevant one
    vectors = np.array([[1, 0], [1, 1], [1, 1]], np.float32)
    for names, hit in ((["q", "a", "b"], 1.0), (["q", "b", "a"], 0.0)):
        report = evaluate(Embeddings(names, vectors, [0, 0, -1]), metrics=["precision@1"])
        assert report.per_query["precision@1"][0] == hit
        assert report.counts["ties"] == 1


def test_all_vectors_equal():
    labels = np.arange(40) % 4
    report = evaluate(embeddings(np.ones((40, 3)), labels), metrics=ALL)
    assert report.counts["ties"] == 40
    # the ranking is that of the names, which is the order of the rows here
    first = [1, 0, 0, 0]
    assert report.per_query["precision@1"][:4].tolist() == [
        float(labels[row] == labels[f]) for row, f in enumerate(first)
    ]


@pytest.mark.parametrize(
    "names", [["q", "a", "x", "y"], ["q", "x", "a", "b"], ["z", "b", "a", "c"]]
)
def test_a_tie_counts_wherever_the_names_stand(names):
    # all equal: the first two are of one class, the others of none
    report = evaluate(Embeddings(names, np.ones((4, 2)), [0, 0, -1, -1]), metrics=["map"])
    assert report.counts["ties"] == 2
    for row, other in ((0, 1), (1, 0)):
        before = sum(name < names[other] for name in names[2:])
        assert report.per_query["map"][row] == pytest.approx(1 / (1 + before))


def test_labels_of_any_size_are_integers():
    # as float32 these labels would be one
    labels = 2**60 + np.array([0, 0, 1, 1])
    vectors = np.array([[1, 0], [1, 0.1], [0, 1], [0.1, 1]], np.float32)
    report = evaluate(embeddings(vectors, labels), metrics=["r_precision"])
    assert report.counts["classes"] == 2
    assert report.metrics["r_precision"] == 1.0


def test_labels_are_compared_by_text_where_they_have_one():
    vectors, labels = clustered(90, 6, 8, 3)
    plain = evaluate(
        embeddings(vectors[:30], labels[:30], "q"), embeddings(vectors[30:], labels[30:], "g")
    )
    texts = [f"class {label}" for label in labels]
    # each file numbers its own texts: the second begins with others
    queries = embeddings(vectors[:30], texts[:30], "q")
    gallery = embeddings(
        vectors[30:], labels[30:], "g", label_names=[f"class {n}" for n in range(6)]
    )
    assert evaluate(queries, gallery).metrics == plain.metrics
    with pytest.raises(InputError, match="have label names, but others only numbers"):
        evaluate(queries, embeddings(vectors[30:], labels[30:], "g"))


def test_an_unlabelled_gallery_only_distracts():
    vectors, labels = clustered(40, 4, 8, 4)
    queries = embeddings(vectors, [f"c{label}" for label in labels])
    gallery = embeddings(vectors, np.full(40, -1), "g")
    report = evaluate(queries, gallery)
    assert report.counts["without_positives"] == 40
    assert all(np.isnan(value) for value in report.metrics.values())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": "b" * 64}, "made by model aaaaaaaaaaaa, but the gallery by bbbbbbbbbbbb"),
        ({"metric": "dot"}, "compared by cosine, but the gallery by dot"),
    ],
)
def test_different_models_are_refused(change, message):
    vectors, labels = clustered(20, 3, 4, 6)
    queries = embeddings(vectors, labels, space="a" * 64)
    gallery = embeddings(vectors, labels, "g", **{"space": "a" * 64} | change)
    with pytest.raises(InputError, match=message):
        evaluate(queries, gallery)
    if "space" in change:
        assert evaluate(queries, gallery, any_model=True).counts["queries"] == 20


def test_a_student_is_compared_with_its_teacher_only():
    vectors, labels = clustered(20, 3, 4, 6)
    student = embeddings(vectors, labels, space="s" * 64, teacher_space="t" * 64)
    teacher = embeddings(vectors, labels, "g", space="t" * 64)
    other = embeddings(vectors, labels, "g", space="o" * 64, teacher_space="t" * 64)
    expected = evaluate(student, teacher, any_model=True).metrics
    assert evaluate(student, teacher).metrics == expected
    assert evaluate(teacher, student).counts["queries"] == 20
    with pytest.raises(InputError, match="made by model"):
        evaluate(student, other)


def test_what_of_a_model_was_used_is_told():
    vectors, labels = clustered(20, 3, 4, 6)
    queries = embeddings(vectors, labels, space="a" * 64)
    gallery = embeddings(vectors, labels, "g", space="a" * 64 + "/penultimate")
    with pytest.raises(InputError, match="but the gallery by aaaaaaaaaaaa/penultimate"):
        evaluate(queries, gallery)


def test_an_unknown_model_only_warns(caplog):
    vectors, labels = clustered(20, 3, 4, 6)
    with caplog.at_level(logging.WARNING):
        evaluate(embeddings(vectors, labels, space="a"), embeddings(vectors, labels, "g"))
    assert "not known of both files" in caplog.text


def test_different_dimensions_are_refused():
    with pytest.raises(InputError, match="queries are 3-d vectors, but the gallery holds 2-d ones"):
        evaluate(embeddings(np.eye(3), [0, 0, 0]), embeddings(np.ones((3, 2)), [0, 0, 0], "g"))


@pytest.mark.parametrize("labels", [[-1, -1], [0, 1]])
def test_undefined_is_nan_and_said(labels, caplog):
    with caplog.at_level(logging.WARNING):
        report = evaluate(embeddings(np.eye(2), labels), metrics=(*ALL, "recall@5"), bootstrap=5)
    assert all(np.isnan(value) for value in report.metrics.values())
    assert "no query has a relevant row" in caplog.text
    assert np.isnan(report.intervals["map"]).all()


def test_no_rows_at_all():
    empty = Embeddings(np.array([], "S1"), np.ones((0, 4)), np.array([], np.int64))
    some = embeddings(np.eye(4), [0, 0, 1, 1])
    everything = (*ALL, "recall@1", "nmi", "ami", "f1")
    assert all(np.isnan(v) for v in evaluate(empty, metrics=everything).metrics.values())
    assert evaluate(empty, some).counts["queries"] == 0
    assert evaluate(some, empty).counts["without_positives"] == 4


def test_a_role_that_nobody_has_is_refused():
    columns = {"is_query": np.zeros(4, bool), "is_gallery": np.ones(4, bool)}
    with pytest.raises(InputError, match="is_query is 0 in every row"):
        evaluate(embeddings(np.eye(4), [0, 0, 1, 1], columns=columns))


@pytest.mark.parametrize("name", ["recal@1", "recall@0", "accuracy"])
def test_unknown_metrics_are_refused(name):
    with pytest.raises(UsageError, match="no metric"):
        evaluate(embeddings(np.eye(2), [0, 0]), metrics=[name])


def test_float16_and_float32_files_agree_where_values_do():
    vectors, labels = clustered(100, 10, 8, 7)
    half = vectors.astype(np.float16)
    one = evaluate(embeddings(half, labels), metrics=ALL)
    two = evaluate(embeddings(half.astype(np.float32), labels), metrics=ALL)
    assert one.metrics == two.metrics


def test_bootstrap_intervals_are_those_of_the_mean():
    vectors, labels = clustered(500, 60, 8, 8)
    report = evaluate(embeddings(vectors, labels), metrics=ALL, bootstrap=400, seed=1)
    for name, (low, high) in report.intervals.items():
        values = report.per_query[name][~np.isnan(report.per_query[name])]
        error = 1.96 * values.std() / np.sqrt(len(values))
        assert low < report.metrics[name] < high
        assert (high - low) / 2 == pytest.approx(error, rel=0.25)
    again = evaluate(embeddings(vectors, labels), metrics=ALL, bootstrap=400, seed=1)
    assert again.intervals == report.intervals


def test_means_average_by_class():
    vectors, labels = clustered(60, 5, 8, 9)
    labels[:2] = -1
    report = evaluate(embeddings(vectors, labels))
    names, sizes, means = average_by_class(report)
    assert names == ["", "0", "1", "2", "3", "4"]
    assert sizes.tolist() == [np.count_nonzero(labels == label) for label in range(-1, 5)]
    assert np.isnan(means["map@r"][0])
    for label in range(5):
        expected = report.per_query["map@r"][labels == label].mean()
        assert means["map@r"][label + 1] == pytest.approx(expected)


def test_score_is_evaluate_on_arrays():
    vectors, labels = clustered(80, 8, 8, 10)
    assert (
        score(vectors, labels, metrics=ALL)
        == evaluate(embeddings(vectors, labels), metrics=ALL).metrics
    )


def test_nmi_is_about_the_labelled_queries():
    vectors, labels = clustered(90, 3, 8, 11, noise=0.05)
    labels[:30] = -1
    found = evaluate(embeddings(vectors, labels), metrics=["nmi", "ami", "f1"])
    assert 0.5 < found.metrics["nmi"] <= 1.0
    assert found.counts["ties"] == 0


@pytest.mark.parametrize("memory", [2**21, 2**30])
def test_the_memory_limit_changes_nothing(memory):
    vectors, labels = clustered(700, 50, 16, 12)
    asked = Resources(max_memory=memory, threads=1)
    found = evaluate(embeddings(vectors, labels), metrics=ALL, resources=asked)
    assert found.metrics == evaluate(embeddings(vectors, labels), metrics=ALL).metrics


def test_cosine_vectors_are_normalised_before_clustering():
    rng = np.random.default_rng(2)
    directions = np.array([[1.0, 0.0], [0.0, 1.0]])
    labels = np.arange(60) % 2
    vectors = directions[labels] * 10 ** rng.uniform(-2, 2, (60, 1))
    assert score(vectors, labels, metrics=["nmi"]) == {"nmi": pytest.approx(1.0)}
    assert score(vectors, labels, metrics=["nmi"], metric="euclidean")["nmi"] < 0.9
