"""Indexes by faiss: kinds, recall, shards, round trips, and the same answers as exact search."""

import faiss
import numpy as np
import pytest

from mltool.errors import InputError, UsageError
from mltool.files import search_index as files
from mltool.files.embeddings import Embeddings
from mltool.retrieval._factory import choose_factory
from mltool.retrieval.faiss_index import build, load, search_index
from mltool.retrieval.neighbours import search

faiss.omp_set_num_threads(1)
KINDS = ["auto", "flat", "ivf:lists=8", "ivf", "hnsw:links=8", "PCA8,Flat"]


def embeddings(count=600, dim=16, seed=0, **further):
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).standard_normal((20, dim))
    vectors = centres[rng.integers(0, 20, count)] + 0.5 * rng.standard_normal((count, dim))
    names = [f"s{seed}-{n:04d}" for n in range(count)]
    return Embeddings(names, vectors, rng.integers(-1, 5, count), **further)


def stored(built, path):
    files.write(path, built.about, built.emit)
    return files.read(path)


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("kind", KINDS)
def test_kinds_find_what_exact_search_finds(kind, metric, tmp_path):
    gallery = embeddings(metric=metric)
    queries = embeddings(50, seed=1, metric=metric)
    built = build([gallery], kind=kind)
    found = search_index(queries, stored(built, tmp_path / "i.index"), k=5)
    exact = search(queries, gallery, k=5)
    same = np.mean(
        [len(set(a) & set(b)) / 5 for a, b in zip(found.names, exact.names, strict=True)]
    )
    least = 0.3 if "pq" in kind or "PCA" in kind else 0.9
    assert same >= least
    assert built.about.recall >= least
    if kind in ("auto", "flat"):
        assert same == 1.0
        np.testing.assert_allclose(found.scores, exact.scores, atol=1e-5, rtol=1e-5)
    assert (np.diff(found.scores, axis=1) <= 0).all()


def test_product_quantisation_finds_most():
    built = build([embeddings(300)], kind="ivfpq:lists=1,bytes=2")
    assert built.about.factory == "IVF1,PQ2x8"
    assert 0.3 < built.about.recall < 1.0
    assert built.about.trained_on == 300


@pytest.mark.parametrize("metric", ["cosine", "dot", "euclidean"])
@pytest.mark.parametrize("kind", ["flat", "ivf:lists=8"])
def test_any_of_equal_rows_is_a_right_one(kind, metric):
    few = embeddings(30, metric=metric)
    rows = np.random.default_rng(3).permutation(np.repeat(np.arange(30), 20))
    names = [f"{n:04d}" for n in np.random.default_rng(4).permutation(600)]
    built = build([Embeddings(names, few.vectors[rows], metric=metric)], kind=kind)
    assert built.about.recall >= 0.95


def test_the_stored_recall_is_the_measured_one():
    gallery = embeddings(400, 24)
    built = build([gallery], kind="PCA6,Flat")
    exact = search(gallery, None, k=10, keep_self=False)
    loaded = built.index
    ids = loaded.search(_unit(gallery.vectors), 11)[1]
    hits = 0
    for row in range(400):
        found = [gallery.names[i] for i in ids[row] if i != row][:10]
        hits += len(set(found) & set(exact.names[row].tolist()))
    assert built.about.recall == pytest.approx(hits / 4000)
    assert built.about.recall_queries == 400


def _unit(vectors):
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def test_effort_grows_until_enough_is_found():
    gallery = embeddings(3000, 32)
    built = build([gallery], kind="ivf:lists=64")
    probes = faiss.extract_index_ivf(built.index).nprobe
    assert built.about.recall >= 0.95 or probes == 64
    assert probes > 1


def test_the_effort_survives_the_file(tmp_path):
    built = build([embeddings(3000, 32)], kind="ivf:lists=64")
    again = load(stored(built, tmp_path / "i.index"))
    assert faiss.extract_index_ivf(again).nprobe == faiss.extract_index_ivf(built.index).nprobe > 1


@pytest.mark.parametrize("kind", ["flat", "ivf:lists=4"])
def test_shards_give_the_index_of_the_whole(kind, tmp_path):
    whole = embeddings(500)
    shards = [
        Embeddings(whole.names[rows], whole.vectors[rows], whole.labels[rows])
        for rows in np.array_split(np.arange(500), 4)
    ]
    one, two = (stored(build(parts, kind=kind), tmp_path / "i") for parts in ([whole], shards))
    assert one.digest == two.digest


def test_the_same_call_gives_the_same_bytes(tmp_path):
    paths = [tmp_path / name for name in "ab"]
    for path in paths:
        stored(build([embeddings()], kind="PCA8,IVF4,SQ8", seed=3), path)
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_labels_and_names_stand_in_the_order_of_the_rows():
    one = Embeddings(["b", "a"], np.eye(2), ["x", "y"])
    two = Embeddings(["d", "c"], np.eye(2), ["y", "z"])
    about = build([one, two]).about
    assert about.names.tolist() == [b"b", b"a", b"d", b"c"]
    assert [about.label_names[label] for label in about.labels] == ["x", "y", "y", "z"]


def test_self_is_left_out_by_name_on_request(tmp_path):
    gallery = embeddings(100)
    about = stored(build([gallery]), tmp_path / "i.index")
    kept = search_index(gallery, about, k=3)
    assert (kept.names[:, 0] == gallery.names).all()
    left_out = search_index(gallery, about, k=3, keep_self=False)
    exact = search(gallery, gallery, k=3, keep_self=False)
    np.testing.assert_array_equal(left_out.names, exact.names)


def test_more_hits_than_rows(tmp_path):
    about = stored(build([embeddings(3)]), tmp_path / "i.index")
    found = search_index(embeddings(2, seed=1), about, k=10)
    assert (found.names != b"").sum(axis=1).tolist() == [3, 3]
    assert np.isneginf(found.scores[:, 3:]).all()


def test_float16_vectors_are_indexed_as_they_are(tmp_path):
    gallery = embeddings(200)
    half = Embeddings(gallery.names, gallery.vectors.astype(np.float16))
    found = search_index(half, stored(build([half]), tmp_path / "i.index"), k=4)
    exact = search(half, half, k=4)
    np.testing.assert_array_equal(found.names, exact.names)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("nonsense", "faiss cannot build 'nonsense'"),
        ("ivf:cells=3", "no setting 'cells=3'"),
        ("ivf:lists=0", "no setting"),
        ("ivfpq:bytes=5", "bytes=5 does not divide the 16 dimensions"),
        ("flat:x=1", "there are: none"),
        ("PQ8x8", "cannot be trained on 100 vectors"),
    ],
)
def test_kinds_that_do_not_fit_are_refused(kind, message):
    with pytest.raises(UsageError, match=message):
        build([embeddings(100)], kind=kind)


def test_auto_goes_by_size():
    assert choose_factory("auto", 1_000_000, 512) == "Flat"
    assert choose_factory("auto", 1_000_001, 512) == "IVF4096,Flat"
    assert choose_factory("auto", 20_000_000, 512).startswith("IVF")
    assert choose_factory("auto", 20_000_000, 512).endswith("PQ64x8")
    assert choose_factory("ivf", 30, 4) == "IVF1,Flat"


def test_parts_that_do_not_fit_are_refused():
    one = embeddings(10)
    with pytest.raises(InputError, match="no vectors to index"):
        build([Embeddings(np.array([], "S1"), np.ones((0, 4)))])
    with pytest.raises(InputError, match="more than once"):
        build([one, one])
    with pytest.raises(InputError, match="-d vectors"):
        build([one, embeddings(10, 8, seed=1)])


def test_queries_that_do_not_fit_are_refused(tmp_path):
    about = stored(build([embeddings(20, space="a" * 64)]), tmp_path / "i.index")
    with pytest.raises(InputError, match="any-model"):
        search_index(embeddings(2, seed=1, space="b" * 64), about)
    with pytest.raises(InputError, match="8-d vectors"):
        search_index(embeddings(2, 8, seed=1), about)


def test_names_that_do_not_fit_the_bytes_are_refused(tmp_path):
    built, other = build([embeddings(20)]), build([embeddings(21)])
    files.write(tmp_path / "i.index", built.about, other.emit)
    with pytest.raises(InputError, match="holds 21 vectors"):
        load(files.read(tmp_path / "i.index"))


def test_bytes_that_are_no_index_are_refused(tmp_path):
    built = build([embeddings(20)])
    files.write(tmp_path / "i.index", built.about, lambda write: write(b"nothing of faiss"))
    with pytest.raises(InputError, match="faiss cannot read"):
        load(files.read(tmp_path / "i.index"))


def test_an_index_that_finds_little_is_told(caplog):
    build([embeddings(300)], kind="PCA4,Flat")
    assert "at the greatest effort" in caplog.text
