"""Approximate search by faiss: building, tuning, measuring and searching an index.

An inverted file visits only the lists nearest to the query (Jegou, Douze, Schmid, "Product
Quantization for Nearest Neighbor Search", 2011); HNSW walks a graph (Malkov, Yashunin, 2020).
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mltool.errors import InputError, NotFiniteError, UsageError
from mltool.exact.blocks import split_rows
from mltool.files.concatenated_rows import ConcatenatedRows, release
from mltool.files.embeddings import Embeddings
from mltool.files.hits import Hits
from mltool.files.labels import join_labels
from mltool.files.names import check_unique
from mltool.files.search_index import SearchIndex
from mltool.retrieval._factory import TRAINED_PER_LIST, choose_factory
from mltool.retrieval._tuning import search_faiss, tune
from mltool.retrieval.query_gallery import check_comparable, find_self_rows

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

ADDED = 2**15  # rows prepared at a time
RECALL_QUERIES = 1000


@dataclass(frozen=True, eq=False)
class Built:
    """A faiss index that is ready to be written by `files.search_index.write`."""

    index: "faiss.Index"
    about: SearchIndex

    def emit(self, write: Callable[[bytes], object]) -> None:
        """Pass the bytes of the index on, piece by piece."""
        import faiss

        def take(piece: bytes) -> int:
            write(piece)
            return len(piece)

        writer = faiss.PyCallbackIOWriter(take, 2**20)  # type: ignore[attr-defined]
        faiss.write_index(self.index, writer)


def build(shards: Sequence[Embeddings], *, kind: str = "auto", seed: int = 0) -> Built:
    """Index the rows of all `shards` in order, reading a block at a time.

    `kind` is auto, flat, ivf[:lists=N], hnsw[:links=N], ivfpq[:lists=N,bytes=N] or a faiss factory
    text. What needs training is trained on 40 rows for each list, drawn with `seed`. nprobe or
    efSearch grows until 95 % of the exact 10 nearest rows of sampled rows are found; what was
    reached is stored. HNSW graphs depend on timing when built by several threads. Raises
    UsageError for a kind that does not exist or fit, InputError for shards that do not fit.
    """
    import faiss

    _check(shards)
    count, dim, metric = sum(map(len, shards)), shards[0].vectors.shape[1], shards[0].metric
    factory = choose_factory(kind, count, dim)
    similarity = faiss.METRIC_L2 if metric == "euclidean" else faiss.METRIC_INNER_PRODUCT
    try:
        index = faiss.index_factory(dim, factory, similarity)
    except RuntimeError as error:
        raise UsageError(f"faiss cannot build {factory!r} ({_shorten_reason(error)})") from error
    trained = 0 if index.is_trained else _train(index, factory, shards, seed)
    for _, block in _prepare_blocks(shards):
        index.add(block)
    recall, queries = _measure_recall(index, shards, seed)
    labels, label_names = join_labels(shards)
    about = SearchIndex(
        names=np.concatenate([shard.names for shard in shards]),
        labels=labels,
        label_names=label_names,
        dim=dim,
        metric=metric,
        factory=factory,
        space=shards[0].space,
        preprocess=shards[0].preprocess,
        trained_on=trained,
        recall=recall,
        recall_queries=queries,
    )
    return Built(index, about)


def load(about: SearchIndex) -> "faiss.Index":
    """Load the faiss index of a file that `files.search_index.read` has checked.

    Raises InputError for bytes that faiss cannot read, or that do not fit the names.
    """
    import faiss

    offset = 0

    def give(size: int) -> bytes:
        nonlocal offset
        piece = about.data[offset : offset + size].tobytes()
        offset += len(piece)
        return piece

    try:
        reader = faiss.PyCallbackIOReader(give, 2**20)  # type: ignore[attr-defined]
        index = faiss.read_index(reader)
    except RuntimeError as error:
        raise InputError(
            f"faiss cannot read the index ({_shorten_reason(error)}); build it again"
        ) from error
    release(about.data)
    if index.ntotal != len(about) or index.d != about.dim:
        raise InputError(
            f"the index holds {index.ntotal} vectors of {index.d} dimensions, but {len(about)} "
            f"names and dimension {about.dim}; build it again"
        )
    return index


def search_index(
    queries: Embeddings,
    about: SearchIndex,
    *,
    k: int = 10,
    keep_self: bool = True,
    any_model: bool = False,
) -> Hits:
    """Return the `k` nearest rows that the index finds for each query; scores as in `search`.

    Raises InputError if queries and index are of different models or dimensions.
    """
    check_comparable(queries, as_embeddings(about), any_model=any_model)
    index = load(about)
    vectors = prepare(np.asarray(queries.vectors, np.float32), about.metric)
    if not np.isfinite(vectors).all():
        raise NotFiniteError("the queries hold NaN or infinite values; embed them again")
    self_rows = None if keep_self else find_self_rows(queries.names, about.names)
    scores, rows = search_faiss(index, vectors, k, self_rows)
    if about.metric == "euclidean":
        scores = -np.sqrt(np.maximum(scores, 0.0))
    return Hits.from_rows(queries.names, about.names, rows, scores.astype(np.float64))


def as_embeddings(about: SearchIndex) -> Embeddings:
    """Describe the rows of an index as embeddings, with zeros for the vectors.

    `check_comparable` can then compare names, dimension, metric and model with those of queries.
    """
    empty = np.broadcast_to(np.float32(0), (len(about), about.dim))
    return Embeddings(about.names, empty, metric=about.metric, space=about.space)


def prepare(vectors: np.ndarray, metric: str) -> np.ndarray:
    """Convert vectors [n, D] to what faiss compares: float32, of unit length for cosine."""
    ready = np.array(vectors, np.float32, order="C")
    if metric == "cosine":
        norms = np.linalg.norm(ready.astype(np.float64), axis=1, keepdims=True)
        ready = (ready / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    return ready


def _check(shards: Sequence[Embeddings]) -> None:
    if not sum(map(len, shards)):
        raise InputError("there are no vectors to index; embed some images first")
    for shard in shards[1:]:
        check_comparable(shards[0], shard, any_model=False)
    check_unique(np.concatenate([shard.names for shard in shards]), "the embeddings to index")


def _prepare_blocks(shards: Sequence[Embeddings]) -> Iterator[tuple[int, np.ndarray]]:
    first = 0
    for shard in shards:
        for rows in split_rows(len(shard), ADDED):
            yield first + rows.start, prepare(shard.vectors[rows], shard.metric)
            release(shard.vectors)
        first += len(shard)


def _sample(shards: Sequence[Embeddings], rows: np.ndarray) -> Embeddings:
    """Return names and vectors of `rows`, counted over all shards, in memory."""
    stored = ConcatenatedRows([shard.vectors for shard in shards])
    names = np.concatenate([shard.names for shard in shards])[rows]
    vectors = stored[rows]
    release(stored)
    return Embeddings(names, vectors, metric=shards[0].metric, space=shards[0].space)


def _train(index: "faiss.Index", factory: str, shards: Sequence[Embeddings], seed: int) -> int:
    import faiss

    count = sum(map(len, shards))
    inverted = faiss.try_extract_index_ivf(index)
    lists = 256 if inverted is None else max(256, inverted.nlist)
    number = min(count, TRAINED_PER_LIST * lists)
    rows = np.sort(np.random.default_rng(seed).choice(count, number, replace=False))
    sample = prepare(_sample(shards, rows).vectors, shards[0].metric)
    logger.info("training %s on %d of %d vectors", factory, number, count)
    try:
        index.train(sample)
    except RuntimeError as error:
        raise UsageError(
            f"{factory} cannot be trained on {number} vectors ({_shorten_reason(error)}); take a "
            "smaller or simpler index"
        ) from error
    return number


def _measure_recall(
    index: "faiss.Index", shards: Sequence[Embeddings], seed: int
) -> tuple[float, int]:
    """Tune the index with a sample of its rows as queries; return (recall, queries)."""
    count = sum(map(len, shards))
    number = min(count, RECALL_QUERIES)
    rows = np.sort(np.random.default_rng(seed + 1).choice(count, number, replace=False))
    queries = _sample(shards, rows)
    vectors = prepare(queries.vectors, queries.metric)
    return tune(index, queries, vectors, rows, shards), number


def _shorten_reason(error: RuntimeError) -> str:
    return " ".join(str(error).split())[:200]
