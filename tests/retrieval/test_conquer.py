"""Parts of vectors: one slice, or all of them normalised and joined."""

import numpy as np
import pytest
from sklearn.preprocessing import normalize

from mltool.errors import InputError, ResourceError
from mltool.exact.knn import Resources
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings
from mltool.retrieval.conquer import take_part
from mltool.retrieval.scoring import evaluate

RNG = np.random.default_rng(0)
VECTORS = RNG.standard_normal((30, 12)).astype(np.float32) * RNG.random((30, 1)).astype(np.float32)
VECTORS[4, 3:9] = 0.0
LABELS = np.repeat(np.arange(6), 5)
NAMES = [str(number) for number in range(30)]
PARTS = ((0, 3), (3, 9), (9, 12))


def make_embeddings(vectors: np.ndarray = VECTORS, **facts: object) -> Embeddings:
    return Embeddings(NAMES, vectors, LABELS, **({"parts": PARTS} | facts))


def take(embeddings: Embeddings, part: str | None, max_memory: int = 2**30) -> Embeddings:
    resources = Resources(max_memory=max_memory)
    return take_part(embeddings, part, source="test.h5", resources=resources)


def test_no_part_is_the_whole() -> None:
    whole = make_embeddings()
    assert take(whole, None) is whole
    plain = make_embeddings(parts=())
    assert take(plain, None) is plain


@pytest.mark.parametrize("number", range(3))
def test_one_part_is_a_view(number: int) -> None:
    found = take(make_embeddings(), str(number))
    np.testing.assert_array_equal(found.vectors, VECTORS[:, slice(*PARTS[number])])
    assert np.shares_memory(found.vectors, VECTORS)
    assert (found.parts, found.normalized) == ((), False)


def test_all_parts_count_alike() -> None:
    expected = normalize(
        np.concatenate([normalize(VECTORS[:, a:b].astype(float)) for a, b in PARTS], axis=1)
    )
    found = take(make_embeddings(), "all")
    np.testing.assert_allclose(found.vectors, expected, atol=1e-7)
    assert (found.vectors[4, 3:9] == 0).all()
    assert found.normalized


def test_shards_have_the_same_parts() -> None:
    shards = make_embeddings(ConcatenatedRows([VECTORS[:7], VECTORS[7:]]))
    for part in ("1", "all"):
        np.testing.assert_array_equal(
            np.asarray(take(shards, part).vectors), take(make_embeddings(), part).vectors
        )


def test_a_part_is_ranked_as_a_file_of_its_columns() -> None:
    alone = Embeddings(NAMES, np.ascontiguousarray(VECTORS[:, 9:]), LABELS)
    metrics = ["precision@1", "map@r"]
    theirs = evaluate(alone, None, metrics=metrics).metrics
    assert evaluate(take(make_embeddings(), "2"), None, metrics=metrics).metrics == theirs


def test_what_is_refused() -> None:
    with pytest.raises(InputError, match="without parts"):
        take(make_embeddings(parts=()), "0")
    with pytest.raises(InputError, match="has no part 3; its parts are 0 to 2"):
        take(make_embeddings(), "3")
    with pytest.raises(InputError, match="compared by euclidean"):
        take(make_embeddings(metric="euclidean"), "all")
    take(make_embeddings(metric="euclidean"), "0")
    with pytest.raises(ResourceError, match="--max-memory"):
        take(make_embeddings(), "all", max_memory=100)
