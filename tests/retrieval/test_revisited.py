"""The revisited protocol against a walk down the ranked list, as the paper describes it."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from mltool.errors import InputError, ResourceError
from mltool.exact import knn
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.files.landmarks import KINDS, GroundTruth
from mltool.retrieval import revisited

RIGHT = {"easy": ["easy"], "medium": ["easy", "hard"], "hard": ["hard"]}
OUT = {"easy": ["hard", "junk"], "medium": ["junk"], "hard": ["easy", "junk"]}


def walked(order, right, out):
    """AP by trapezoids and P@1, 5, 10, walking down `order`; None without anything right."""
    if not len(right):
        return None
    area, recall, precision, seen, hits, curve = 0.0, 0.0, 1.0, 0, 0, []
    for row in order:
        if row in out:
            continue
        seen += 1
        hits += row in right
        curve.append(hits / seen)
        area += (hits / len(right) - recall) * (precision + hits / seen) / 2
        recall, precision = hits / len(right), hits / seen
    found_all_at = next(n for n, p in enumerate(curve, 1) if round(p * n) == len(right))
    return area, *(curve[min(found_all_at, k) - 1] for k in (1, 5, 10))


def expected(queries, gallery, truth):
    """Every measure from scores in float64, ties by name."""

    def unit(part):
        rows = part.vectors.astype(np.float64)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    scores = np.round(unit(queries) @ unit(gallery).T, 12)
    names = np.argsort(np.argsort(gallery.names))
    found = {setup: [] for setup in RIGHT}
    for answer, row in zip(truth.answers, scores, strict=True):
        order = np.lexsort((names, -row)).tolist()
        for setup in RIGHT:
            right = {int(n) for kind in RIGHT[setup] for n in answer[kind]}
            out = {int(n) for kind in OUT[setup] for n in answer[kind]}
            found[setup].append(walked(order, right, out))
    return found


def embedded(prefix, count, *, dim=6, seed=0, levels=None):
    vectors = np.random.default_rng(seed).standard_normal((count, dim))
    if levels:  # few values: many ties
        vectors = np.clip(np.round(vectors), -levels, levels)
        vectors[:, 0] = 3.0
    return Embeddings([f"{prefix}{row:04d}.jpg" for row in range(count)], vectors, space="s" * 64)


def truth_of(queries, gallery, seed, share=0.3):
    """Kinds drawn at random; of the first three queries some setups have nothing to find."""
    rng = np.random.default_rng(seed)
    answers = []
    for number in range(len(queries)):
        kinds = rng.choice([*KINDS, ""], len(gallery), p=[share / 3] * 3 + [1 - share])
        if number < 3:
            kinds[kinds == KINDS[number]] = "junk"
        if number == 3:
            kinds[:] = "junk"
        if number == 4:
            kinds[:] = ""
        answers.append({kind: np.flatnonzero(kinds == kind) for kind in KINDS})
    stems = [np.char.replace(part.names, b".jpg", b"") for part in (queries, gallery)]
    return GroundTruth(*stems, np.full((len(queries), 4), np.nan), tuple(answers))


def check(report, found):
    for setup, values in found.items():
        defined = np.array([value for value in values if value is not None])
        assert report.counts[f"without_positives_{setup}"] == len(values) - len(defined)
        for place, measure in enumerate(("map", "mp@1", "mp@5", "mp@10")):
            column = report.per_query[f"{measure}_{setup}"]
            alone = [np.nan if value is None else value[place] for value in values]
            assert column == pytest.approx(np.array(alone), abs=1e-12, nan_ok=True)
            mean = defined[:, place].mean() if len(defined) else np.nan
            assert report.metrics[f"{measure}_{setup}"] == pytest.approx(mean, nan_ok=True)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("levels", [None, 1])
def test_random_ground_truths(seed, levels):
    queries = embedded("q", 12, seed=seed, levels=levels)
    gallery = embedded("g", 150, seed=seed + 50, levels=levels)
    truth = truth_of(queries, gallery, seed, share=(0.1, 0.3, 0.6, 0.9)[seed])
    check(revisited.evaluate(queries, gallery, truth), expected(queries, gallery, truth))


def test_the_worked_example():
    ranks, relevant = np.array([[0, 2]]), np.array([2])
    assert revisited.trapezoidal_average_precision(ranks, relevant)[0] == pytest.approx(
        0.791667, abs=1e-6
    )
    values = [revisited.precision_at_k(ranks, relevant, k=k)[0] for k in (1, 5, 10)]
    assert values == pytest.approx([1, 2 / 3, 2 / 3])


def test_padding_and_nothing_to_find():
    ranks = np.array([[0, 1, 0], [1, 0, 0], [9, 9, 9]])
    relevant = np.array([2, 1, 0])
    assert revisited.trapezoidal_average_precision(ranks, relevant).tolist()[:2] == [1.0, 0.25]
    assert np.isnan(revisited.trapezoidal_average_precision(ranks, relevant)[2])
    found = revisited.precision_at_k(ranks, relevant, k=5)
    assert found.tolist()[:2] == [1.0, 0.5]
    assert np.isnan(found[2])
    none = np.empty((1, 0), np.int64)
    assert np.isnan(revisited.trapezoidal_average_precision(none, np.array([0]))).all()
    assert np.isnan(revisited.precision_at_k(none, np.array([0]), k=1)).all()


def test_the_step_version_bounds_it():
    """The trapezoid's left corner, just above a right row, is never the higher one."""
    rng = np.random.default_rng(0)
    for _ in range(50):
        labels = rng.random(40) < 0.3
        labels[39] = True
        ranks = np.flatnonzero(labels)
        found = revisited.trapezoidal_average_precision(ranks[None], np.array([len(ranks)]))[0]
        step = average_precision_score(labels, -np.arange(40))
        assert found <= step + 1e-12
        assert step - found <= 0.5
    perfect = revisited.trapezoidal_average_precision(np.arange(7)[None], np.array([7]))[0]
    assert perfect == average_precision_score(np.arange(40) < 7, -np.arange(40)) == 1


def test_the_order_of_files_does_not_matter():
    queries, gallery = embedded("q", 9), embedded("g", 80, seed=1)
    truth = truth_of(queries, gallery, 0)
    whole = revisited.evaluate(queries, gallery, truth)
    rng = np.random.default_rng(0)
    turned = []
    for part in (queries, gallery):
        rows = rng.permutation(len(part))
        names = [b"jpg/" + name[:-4] + b".JPEG" for name in part.names[rows].tolist()]
        turned.append(replace(part, names=np.array(names), vectors=part.vectors[rows],
                              labels=part.labels[rows]))  # fmt: skip
    other = revisited.evaluate(*turned, truth)
    assert other.metrics == pytest.approx(whole.metrics)  # summed in another order
    at = {name: row for row, name in enumerate(queries.names.tolist())}
    rows = [at[name[4:-5] + b".jpg"] for name in other.queries.names.tolist()]
    for name, column in whole.per_query.items():
        assert np.array_equal(column[rows], other.per_query[name], equal_nan=True)


@pytest.mark.parametrize("levels", [None, 1])
def test_distractors_are_always_wrong(levels):
    queries, gallery = embedded("q", 9, levels=levels), embedded("g", 60, seed=1, levels=levels)
    # names before and after the gallery's: ties fall on both sides
    parts = [embedded(prefix, 90, seed=2, levels=levels) for prefix in ("a", "z")]
    truth = truth_of(queries, gallery, 0)
    for distractors in parts:
        both = Embeddings(
            np.concatenate([gallery.names, distractors.names]),
            np.concatenate([gallery.vectors, distractors.vectors]),
        )
        report = revisited.evaluate(queries, gallery, truth, distractors=distractors)
        check(report, expected(queries, both, truth))
        assert (report.counts["gallery"], report.counts["distractors"]) == (60, 90)


def test_labels_and_columns_of_distractors_are_of_no_interest(caplog):
    queries, gallery = embedded("q", 9), embedded("g", 60, seed=1)
    truth = truth_of(queries, gallery, 0)
    plain = embedded("z", 90, seed=2)
    expected = revisited.evaluate(queries, gallery, truth, distractors=plain).metrics
    # texts on one side and numbers on the other could not be joined
    named = replace(gallery, labels=np.zeros(60, int), label_names=("church",))
    marked = {"is_gallery": np.ones(90, bool)}
    numbered = replace(plain, labels=np.arange(90), columns=marked)
    found = revisited.evaluate(queries, named, truth, distractors=numbered)
    assert found.metrics == expected
    assert "left out columns" not in caplog.text


def test_little_memory_and_any_precision_change_nothing(monkeypatch):
    queries, gallery = embedded("q", 9), embedded("g", 300, seed=1)
    truth = truth_of(queries, gallery, 0)
    whole = revisited.evaluate(queries, gallery, truth)
    for precision in ("float32", "float64"):
        monkeypatch.setattr(knn, "RELEVANT_BYTES", 10_000)  # some queries at a time
        resources = Resources(max_memory=2**22, precision=precision, threads=1)
        part = revisited.evaluate(queries, gallery, truth, resources=resources)
        assert part.metrics == whole.metrics
        assert part.counts == whole.counts
    with pytest.raises(ResourceError):
        revisited.evaluate(queries, gallery, truth, resources=Resources(max_memory=1000))


def test_queries_with_nothing_to_find_are_left_out_and_counted(caplog):
    queries, gallery = embedded("q", 2), embedded("g", 5, seed=1)
    truth = truth_of(queries, gallery, 0)
    none = np.empty(0, np.int64)
    answers = (
        {"easy": np.array([0]), "hard": none, "junk": np.array([1, 2])},
        {"easy": none, "hard": none, "junk": none},
    )
    report = revisited.evaluate(queries, gallery, replace(truth, answers=answers))
    counts = {setup: report.counts[f"without_positives_{setup}"] for setup in RIGHT}
    assert counts == {"easy": 1, "medium": 1, "hard": 2}
    assert np.isnan(report.metrics["map_hard"])
    assert report.metrics["map_easy"] == report.per_query["map_easy"][0]
    assert "no query has anything to find in the setup hard" in caplog.text
    assert report.relevant.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("kinds", "tied"),
    [
        (["easy", "", "", ""], 1),
        (["easy", "easy", "", ""], 0),
        (["easy", "hard", "", ""], 1),
        (["hard", "junk", "", ""], 1),
        (["junk", "", "", "easy"], 0),
    ],
)
def test_ties_that_decide_are_counted(kinds, tied):
    gallery = Embeddings(["a", "b", "c", "d"], np.array([[1, 1], [1, 1], [0, 1], [1, 0]]))
    queries = Embeddings(["q"], np.array([[1.0, 0.5]]))
    answer = {kind: np.flatnonzero(np.array(kinds) == kind) for kind in KINDS}
    truth = GroundTruth(queries.names, gallery.names, np.full((1, 4), np.nan), (answer,))
    assert revisited.evaluate(queries, gallery, truth).counts["ties"] == tied


def test_collapsed_vectors_are_ranked_by_name():
    gallery = Embeddings([f"g{row}" for row in range(8)], np.ones((8, 3)))
    queries = Embeddings(["q"], np.ones((1, 3)))
    answer = {"easy": np.array([6]), "hard": np.array([1]), "junk": np.array([0, 2])}
    truth = GroundTruth(queries.names, gallery.names, np.full((1, 4), np.nan), (answer,))
    check(revisited.evaluate(queries, gallery, truth), expected(queries, gallery, truth))


def test_a_student_against_its_teacher():
    queries, gallery = embedded("q", 9), embedded("g", 40, seed=1)
    truth = truth_of(queries, gallery, 0)
    student = replace(queries, space="t" * 64, teacher_space="s" * 64)
    same = revisited.evaluate(student, gallery, truth)
    assert same.metrics == revisited.evaluate(queries, gallery, truth).metrics
    stranger = replace(queries, space="t" * 64)
    with pytest.raises(InputError, match="say --any-model"):
        revisited.evaluate(stranger, gallery, truth)
    others = replace(embedded("z", 5), space="x" * 64)
    with pytest.raises(InputError, match="the gallery and the distractors differ in model"):
        revisited.evaluate(queries, gallery, truth, distractors=others)
    revisited.evaluate(stranger, gallery, truth, distractors=others, any_model=True)


def test_names_that_do_not_fit():
    queries, gallery = embedded("q", 5), embedded("g", 9, seed=1)
    truth = truth_of(queries, gallery, 0)
    wrong = {
        r"queries lack 1 of 5 images of the ground truth \(q0004\)": (embedded("q", 4), gallery),
        r"the gallery lacks 4 of 9 .*\(g0005, g0006, g0007, ...\)": (queries, embedded("g", 5)),
        r"not name 1 of the queries \(q0005.jpg\); embed the queries": (embedded("q", 6), gallery),
        r"not name 2 of the gallery .* as --distractors": (queries, embedded("g", 11)),
    }
    for message, sides in wrong.items():
        with pytest.raises(InputError, match=message):
            revisited.evaluate(*sides, truth)
    names = [*gallery.names.tolist(), b"g0000.png"]
    twice = Embeddings(names, gallery.vectors[[*range(9), 0]], space=gallery.space)
    with pytest.raises(InputError, match="gallery, without folders and suffixes: 1 names stand"):
        revisited.evaluate(queries, twice, truth)
    with pytest.raises(InputError, match="more than once"):
        revisited.evaluate(queries, gallery, truth, distractors=gallery)
