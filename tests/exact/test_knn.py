"""Neighbours and ranks against brute force: every precision, block and strip gives the same."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.errors import ResourceError
from mltool.exact import knn, products, query_block, scan, sweep, top_k
from mltool.exact.knn import Resources
from mltool.exact.relevance import Relevance
from mltool.exact.vector_set import make_vector_sets, score_pairs, score_table
from mltool.files.concatenated_rows import ConcatenatedRows

METRICS = ("cosine", "dot", "euclidean")
KINDS = ("random", "integers", "equal", "copies", "near", "zeros")
PRECISIONS = ("float64", "float32", "bfloat16")


def vectors_of(kind, count, dim, rng):
    vectors = rng.standard_normal((count, dim)).astype(np.float32)
    if kind == "integers":
        vectors = np.round(vectors)
    elif kind == "equal":
        vectors[:] = vectors[:1]
    elif kind == "copies":
        vectors = vectors[rng.integers(0, max(1, count // 4), count)]
    elif kind == "near":
        vectors = (vectors[:1] + 1e-4 * vectors).astype(np.float32)
    elif kind == "zeros":
        vectors[rng.random(count) < 0.5] = 0
    return vectors


def problem(kind, metric, seed, *, count=None, classes=4):
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 50)) if count is None else count
    vectors = vectors_of(kind, count, int(rng.integers(1, 12)), rng)
    names = np.array([f"é{n}".encode() for n in rng.permutation(count)], "S")
    side, _ = make_vector_sets((vectors, names), None, metric=metric)
    return side, rng.integers(-1, classes, count).astype(np.int32)


def brute(queries, gallery, own):
    """Gallery rows of every query in order, by a plain sort of exact scores and names."""
    scores = score_table(queries, np.arange(len(queries)), gallery, np.arange(len(gallery)))
    names = gallery.names.tolist()
    orders = []
    for row in range(len(queries)):
        columns = [column for column in range(len(gallery)) if column != own[row]]
        orders.append(sorted(columns, key=lambda c, r=row: (-scores[r, c], names[c])))
    return orders, scores


def brute_ranks(orders, query_codes, gallery_codes):
    return [
        [r for r, c in enumerate(order) if code >= 0 and gallery_codes[c] == code]
        for order, code in zip(orders, query_codes, strict=True)
    ]


def found_ranks(queries, gallery, relevance, **options):
    resources = Resources(threads=2, **options)
    parts = list(knn.rank_relevant(queries, gallery, relevance, resources=resources))
    ranks = [
        part.ranks[a:b].tolist()
        for part in parts
        for a, b in zip(part.starts, part.starts[1:], strict=False)
    ]
    tied = [
        bool(part.tied[a:b].any())
        for part in parts
        for a, b in zip(part.starts, part.starts[1:], strict=False)
    ]
    return ranks, tied


@pytest.fixture(params=[(4096, 2**19, 0.05), (7, 40, -1.0), (16, 40, 2.0)])
def cut(request, monkeypatch):
    """Large blocks; small ones whose strips are always sorted; small ones never sorted."""
    block, strip, dense = request.param
    monkeypatch.setattr(sweep, "BLOCKS", (block,))
    monkeypatch.setattr(scan, "STRIP", strip)
    monkeypatch.setattr(scan, "DENSE_STRIP", strip // 2)
    monkeypatch.setattr(scan, "DENSE", dense)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("kind", KINDS)
def test_all_against_all(kind, metric, precision, cut):
    side, labels = problem(kind, metric, seed=KINDS.index(kind))
    own = np.arange(len(side))
    orders, scores = brute(side, side, own)
    relevance = Relevance(labels, labels, own, side.tie_order())
    expected = brute_ranks(orders, labels, labels)
    once, tied = found_ranks(side, side, relevance, precision=precision)
    assert once == expected
    both = found_ranks(side, side.view(slice(None)), relevance, precision=precision)
    assert both == (expected, tied)
    assert tied == [
        any(
            scores[row, a] == scores[row, b] and labels[a] == labels[row] != labels[b]
            for a in order
            for b in order
        )
        and labels[row] >= 0
        for row, order in enumerate(orders)
    ]
    for k in (1, 5, 60):
        found = knn.find_neighbors(
            side, side, k=k, self_rows=own, resources=Resources(precision=precision, threads=2)
        )
        for row, order in enumerate(orders):
            wanted = order[:k]
            assert found.rows[row].tolist() == wanted + [-1] * (k - len(wanted))
            exact = knn.to_user_units(scores[row, wanted], side)
            np.testing.assert_array_equal(found.scores[row, : len(wanted)], exact)


@pytest.mark.parametrize("metric", METRICS)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10**6), kind=st.sampled_from(KINDS), dtype=st.sampled_from("efd"))
def test_queries_against_gallery(metric, seed, kind, dtype):
    rng = np.random.default_rng(seed)
    dim = int(rng.integers(1, 9))
    counts = rng.integers(1, 30, 2)
    tables = [vectors_of(kind, count, dim, rng).astype(dtype) for count in counts]
    names = [np.array([f"n{n}" for n in rng.permutation(40)[:c]], "S") for c in counts]
    queries, gallery = make_vector_sets(*zip(tables, names, strict=True), metric=metric)
    codes = [rng.integers(-1, 3, count).astype(np.int32) for count in counts]
    lookup = {name: row for row, name in enumerate(names[1].tolist())}
    own = np.array([lookup.get(name, -1) for name in names[0].tolist()])
    orders, _ = brute(queries, gallery, own)
    relevance = Relevance(codes[0], codes[1], own, gallery.tie_order())
    for dense in (-1.0, 2.0):  # always sorted, never sorted
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(scan, "DENSE", dense)
            assert found_ranks(queries, gallery, relevance)[0] == brute_ranks(orders, *codes)


def test_a_small_depth_keeps_the_ranks_above_it():
    side, labels = problem("copies", "cosine", seed=3, count=200)
    relevance = Relevance(labels, labels, np.arange(200), side.tie_order())
    full = next(iter(knn.rank_relevant(side, side, relevance, resources=Resources())))
    for depth in (1, 5, 50):
        part = next(
            iter(
                knn.rank_relevant(
                    side, side, relevance, depth=np.full(200, depth), resources=Resources()
                )
            )
        )
        inside = full.ranks < depth
        np.testing.assert_array_equal(part.ranks[inside], full.ranks[inside])
        assert (part.ranks[~inside] >= depth).all()


def test_little_memory_only_cuts_the_work(monkeypatch):
    side, labels = problem("integers", "cosine", seed=4, count=300)
    relevance = Relevance(labels, labels, np.arange(300), side.tie_order())
    expected = found_ranks(side, side, relevance)
    monkeypatch.setattr(knn, "RELEVANT_BYTES", 2**20)
    monkeypatch.setattr(knn, "NEIGHBOR_BYTES", 2**20)
    little = Resources(max_memory=2**26, threads=1)
    parts = list(knn.rank_relevant(side, side, relevance, resources=little))
    assert len(parts) > 10
    starts = [part.ranks[a:b].tolist() for part in parts for a, b in _pairs(part.starts)]
    assert starts == expected[0]
    one = knn.find_neighbors(side, side, k=3, self_rows=np.arange(300), resources=little)
    two = knn.find_neighbors(side, side, k=3, self_rows=np.arange(300), resources=Resources())
    np.testing.assert_array_equal(one.rows, two.rows)


def _pairs(starts):
    return itertools.pairwise(starts)


def test_rows_in_several_places_are_one_side():
    side, labels = problem("copies", "cosine", seed=12, count=90)
    relevance = Relevance(labels, labels, np.arange(90), side.tie_order())
    cuts = [side.vectors[:1], side.vectors[1:40], side.vectors[40:40], side.vectors[40:]]
    other, _ = make_vector_sets((ConcatenatedRows(cuts), side.names), None, metric="cosine")
    np.testing.assert_array_equal(other.keys, side.keys)
    assert found_ranks(other, other, relevance) == found_ranks(side, side, relevance)
    one, two = (
        knn.find_neighbors(a.view(slice(20, 60)), a, k=4, self_rows=None, resources=Resources())
        for a in (side, other)
    )
    np.testing.assert_array_equal(one.rows, two.rows)
    np.testing.assert_array_equal(one.scores, two.scores)


def test_too_little_memory_says_how_much():
    side, _ = problem("random", "cosine", seed=0, count=50)
    with pytest.raises(ResourceError, match=r"at least \d+ MiB; raise --max-memory"):
        knn.find_neighbors(side, side, k=1, self_rows=None, resources=Resources(max_memory=1000))


def test_scores_are_those_of_the_definition():
    rng = np.random.default_rng(7)
    a, b = rng.standard_normal((2, 5, 6)).astype(np.float32) * 30
    names = np.array(list("abcde"), "S")
    exact = [x.astype(np.float64) for x in (a, b)]
    norms = [np.linalg.norm(x, axis=1) for x in exact]
    product = exact[0] @ exact[1].T
    expected = {
        "cosine": product / np.outer(*norms),
        "dot": product,
        "euclidean": -np.linalg.norm(exact[0][:, None] - exact[1][None], axis=2),
    }
    for metric, scores in expected.items():
        queries, gallery = make_vector_sets((a, names), (b, names), metric=metric)
        found = knn.find_neighbors(queries, gallery, k=5, self_rows=None, resources=Resources())
        np.testing.assert_allclose(found.scores, -np.sort(-scores), rtol=1e-12)


def test_permuting_scaling_and_rotating_change_nothing():
    rng = np.random.default_rng(8)
    vectors = rng.standard_normal((120, 16))
    names = np.array([f"{n:03d}" for n in range(120)], "S")
    labels = rng.integers(0, 6, 120).astype(np.int32)

    def per_name(table, order):
        side, _ = make_vector_sets((table[order], names[order]), None, metric="cosine")
        codes = labels[order]
        relevance = Relevance(codes, codes, np.arange(120), side.tie_order())
        found, _ = found_ranks(side, side, relevance)
        return dict(zip(names[order].tolist(), found, strict=True))

    straight = per_name(vectors, np.arange(120))
    rotation = np.linalg.qr(rng.standard_normal((16, 16)))[0]
    assert per_name(vectors, rng.permutation(120)) == straight
    assert per_name(vectors * 1e-3, np.arange(120)) == straight
    assert per_name(vectors * rng.uniform(0.1, 9, (120, 1)), np.arange(120)) == straight
    assert per_name(vectors @ rotation, np.arange(120)) == straight


def test_a_query_does_not_find_itself_among_its_copies():
    names = np.array(["a", "b", "c"], "S")
    side, _ = make_vector_sets((np.ones((3, 4), np.float32), names), None, metric="cosine")
    found = knn.find_neighbors(side, side, k=2, self_rows=np.arange(3), resources=Resources())
    assert found.rows.tolist() == [[1, 2], [0, 2], [0, 1]]


@pytest.mark.parametrize("distinct", [1, 3, 50])
def test_equal_rows_are_not_scored_pair_by_pair(distinct, monkeypatch):
    count, scored = 4000, []

    def counting(queries, query_rows, gallery, gallery_rows):
        scored.append(len(query_rows))
        return score_pairs(queries, query_rows, gallery, gallery_rows)

    monkeypatch.setattr(query_block, "score_pairs", counting)
    monkeypatch.setattr(top_k, "score_pairs", counting)
    rng = np.random.default_rng(11)
    vectors = rng.standard_normal((distinct, 8)).astype(np.float32)
    vectors = vectors[rng.integers(0, distinct, count)]
    names = np.array([f"{n:04d}".encode() for n in rng.permutation(count)], "S")
    side, _ = make_vector_sets((vectors, names), None, metric="cosine")
    labels = rng.integers(0, count // 5, count).astype(np.int32)
    relevance = Relevance(labels, labels, np.arange(count), side.tie_order())
    found, tied = found_ranks(side, side, relevance)
    assert sum(scored) < 10 * count  # of count**2 pairs, nearly all of them ties if distinct is 1
    for row in (0, 7, 3999):
        orders, scores = brute(side.view(slice(row, row + 1)), side, [row])
        assert found[row] == brute_ranks(orders, labels[row : row + 1], labels)[0]
        relevant = labels == labels[row]
        relevant[row] = False
        assert tied[row] == bool(np.isin(scores[0, relevant], scores[0, ~relevant]).any())
    scored.clear()
    found = knn.find_neighbors(side, side, k=5, self_rows=np.arange(count), resources=Resources())
    assert sum(scored) < 40 * count
    orders, _ = brute(side.view(slice(9, 10)), side, [9])
    assert found.rows[9].tolist() == orders[0][:5]


def test_empty_sides():
    names = np.array([], "S1")
    none = np.ones((0, 3), np.float32)
    some = np.ones((2, 3), np.float32), np.array(["a", "b"], "S")
    for queries, gallery in ((some, (none, names)), ((none, names), some), ((none, names), None)):
        left, right = make_vector_sets(queries, gallery, metric="cosine")
        found = knn.find_neighbors(left, right, k=2, self_rows=None, resources=Resources())
        assert found.rows.shape == (len(left), 2)
        assert (found.rows == -1).all()
        codes = [np.zeros(len(side), np.int32) for side in (left, right)]
        relevance = Relevance(*codes, np.full(len(left), -1), right.tie_order())
        parts = list(knn.rank_relevant(left, right, relevance, resources=Resources()))
        assert sum(len(part.ranks) for part in parts) == 0


def test_the_precision_is_chosen_by_work_and_doubt(monkeypatch):
    rng = np.random.default_rng(9)
    names = np.array([f"{n:04d}" for n in range(800)], "S")
    monkeypatch.setattr(knn, "WORTH_SAMPLING", 0.0)
    monkeypatch.setattr(knn, "estimate_start_up", lambda precision: 0.0)
    monkeypatch.setattr(knn, "list_precisions", lambda device: PRECISIONS)
    chosen = []
    monkeypatch.setattr(
        knn, "make_products", lambda precision, device: chosen.append(precision) or _numpy()
    )
    far = rng.standard_normal((800, 256)).astype(np.float32)
    narrow = (1 + 1e-3 * far).astype(np.float32)
    for vectors in (far, narrow):
        side, _ = make_vector_sets((vectors, names), None, metric="cosine")
        knn.find_neighbors(side, side, k=1, self_rows=np.arange(800), resources=Resources())
    assert chosen == ["bfloat16", "float64"]


def _numpy():
    return products.NumpyProducts("float64")


@pytest.mark.gpu
def test_a_gpu_gives_the_same():
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU")
    side, labels = problem("copies", "cosine", seed=10, count=500)
    relevance = Relevance(labels, labels, np.arange(500), side.tie_order())
    expected = found_ranks(side, side, relevance)
    for precision in PRECISIONS:
        assert found_ranks(side, side, relevance, device="cuda", precision=precision) == expected
