"""`mltool concat`: vectors of several models side by side, joined by name."""

import logging
import tracemalloc

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from mltool.commands import concat
from mltool.files import canonical_json, embeddings, history
from mltool.files.embeddings import Embeddings

NAMES = [f"c{row % 3}/{row}.jpg" for row in range(12)]
LABELS = [name.partition("/")[0] for name in NAMES]


@pytest.fixture
def write(tmp_path):
    """Write the vectors of one model in an order of its own; returns (path, vectors by NAMES)."""

    def make(file: str, dim: int, seed: int, **changes) -> tuple[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        vectors, order = rng.standard_normal((12, dim)).astype("f"), rng.permutation(12)
        about = {"labels": [LABELS[row] for row in order], "space": file[0] * 64} | changes
        names = [NAMES[row] for row in order]
        embeddings.write(tmp_path / file, Embeddings(names, vectors[order], **about))
        return str(tmp_path / file), vectors

    return make


def test_vectors_are_joined_by_name(write, call, tmp_path):
    a, first = write("a.h5", 3, 0, columns={"row": np.arange(12)}, root="/photos")
    b, second = write("b.h5", 5, 1)
    done = call("concat", a, b, "-o", tmp_path / "all.h5")
    assert "12 vectors of 3 + 5 = 8 dimensions" in done.stderr
    joined, inside = embeddings.read(tmp_path / "all.h5"), embeddings.read(a)
    oracle = normalize(np.hstack([normalize(first), normalize(second)]))
    rows = [NAMES.index(name.decode()) for name in joined.names]
    np.testing.assert_allclose(joined.vectors, oracle[rows], atol=1e-7)
    assert joined.names.tolist() == inside.names.tolist()
    assert [joined.label_names[label] for label in joined.labels] == [LABELS[row] for row in rows]
    assert joined.columns["row"].tolist() == inside.columns["row"].tolist()
    assert (joined.root, joined.normalized, joined.metric) == ("/photos", True, "cosine")
    assert joined.space == canonical_json.digest(["a" * 64, "b" * 64])
    (step,) = history.read(tmp_path / "all.h5")
    assert [item["name"] for item in step["inputs"]] == ["a.h5", "b.h5"]
    assert step["counts"] == {"vectors": 12, "dim": 8}


def test_the_order_of_the_models_counts(write, call, tmp_path):
    a, b = write("a.h5", 3, 0)[0], write("b.h5", 5, 1)[0]
    for name, words in (("ab", (a, b)), ("again", (a, b)), ("ba", (b, a))):
        call("concat", *words, "-o", tmp_path / f"{name}.h5")
    read = {name: embeddings.read(tmp_path / f"{name}.h5") for name in ("ab", "again", "ba")}
    assert (tmp_path / "ab.h5").read_bytes() == (tmp_path / "again.h5").read_bytes()
    assert read["ab"].space != read["ba"].space


def test_shards_of_a_model_are_one_file(write, call, tmp_path):
    a, b = write("a.h5", 3, 0)[0], write("b.h5", 5, 1)[0]
    (tmp_path / "shards").mkdir()
    whole = embeddings.read(a)
    for number, rows in enumerate(np.array_split(np.arange(12), 3)):
        embeddings.write(tmp_path / "shards" / f"a-{number}.h5", whole.take(rows))
    call("concat", a, b, "-o", tmp_path / "one.h5")
    call("concat", tmp_path / "shards", b, "-o", tmp_path / "other.h5")
    one, other = (embeddings.read(tmp_path / f"{name}.h5") for name in ("one", "other"))
    np.testing.assert_array_equal(one.vectors, other.vectors)
    assert one.names.tolist() == other.names.tolist()


def test_what_is_unknown_stays_unknown(write, call, tmp_path):
    a, _ = write("a.h5", 3, 0, labels=None)
    b, _ = write("b.h5", 5, 1, space="")
    call("concat", a, b, "-o", tmp_path / "all.h5")
    joined = embeddings.read(tmp_path / "all.h5")
    assert joined.space == ""
    texts = [joined.label_names[label] for label in joined.labels]
    assert texts == [name.decode().partition("/")[0] for name in joined.names]


def test_students_of_joined_teachers_can_be_compared(write, call, tmp_path):
    teachers = [write("a.h5", 3, 0)[0], write("b.h5", 5, 1)[0]]
    students = [
        write(f"s{n}.h5", dim, n, space=str(n) * 64, teacher_space=of * 64)[0]
        for n, (dim, of) in enumerate(((3, "a"), (5, "b")))
    ]
    for name, words in (("teachers", teachers), ("students", students)):
        call("concat", *words, "-o", tmp_path / f"{name}.h5")
    call("evaluate", tmp_path / "students.h5", tmp_path / "teachers.h5")


def test_a_zero_vector_stays_zero(tmp_path, call, caplog):
    for name in "ab":
        vectors = np.eye(3, dtype="f") * np.array([[0.0], [1e-30], [1e30]], "f")
        embeddings.write(tmp_path / f"{name}.h5", Embeddings(["x", "y", "z"], vectors))
    with caplog.at_level(logging.WARNING):
        concat.run([f"{tmp_path}/a.h5", f"{tmp_path}/b.h5"], f"{tmp_path}/all.h5")
    vectors = embeddings.read(tmp_path / "all.h5").vectors
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), [0, 1, 1], atol=1e-6)
    assert "1 vectors are zero in every file" in caplog.text


def test_what_does_not_fit_is_refused(write, call, tmp_path):
    a, _ = write("a.h5", 3, 0)
    out = tmp_path / "all.h5"
    whole = embeddings.read(a)
    embeddings.write(tmp_path / "few.h5", whole.take(np.arange(9)))
    done = call("concat", a, tmp_path / "few.h5", "-o", out, status=5)
    assert "3 names of" in done.stderr
    assert "of 12 and 9; embed the same list" in " ".join(done.stderr.split())
    done = call("concat", tmp_path / "few.h5", a, "-o", out, status=5)
    assert "3 names of" in done.stderr
    other, _ = write("other.h5", 4, 2, labels=LABELS)
    done = call("concat", a, other, "-o", out, status=5)
    assert "labels are not those of" in done.stderr
    long, _ = write("long.h5", 4, 2, metric="euclidean")
    done = call("concat", a, long, "-o", out, status=5)
    assert "compared by euclidean" in done.stderr
    assert "two or more models" in call("concat", a, "-o", out, status=2).stderr
    assert "input and output at once" in call("concat", a, a, "-o", a, status=2).stderr
    assert not out.exists()
    assert not list(tmp_path.glob("all.h5*"))


def test_streams_within_memory(tmp_path):
    names = [f"{row:06}" for row in range(40_000)]
    vectors = np.random.default_rng(0).standard_normal((40_000, 128)).astype("f")
    for name in "ab":
        embeddings.write(tmp_path / f"{name}.h5", Embeddings(names, vectors))
    tracemalloc.start()
    concat.run([f"{tmp_path}/a.h5", f"{tmp_path}/b.h5"], f"{tmp_path}/all.h5")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.5 * (tmp_path / "all.h5").stat().st_size
