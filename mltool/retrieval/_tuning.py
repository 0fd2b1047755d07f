"""Tune an index: sweep nprobe or efSearch until it finds enough of the exact neighbours."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mltool.exact.vector_set import make_vector_sets, score_pairs, to_user_units
from mltool.files.concatenated_rows import ConcatenatedRows
from mltool.files.embeddings import Embeddings
from mltool.retrieval.neighbours import nearest

if TYPE_CHECKING:
    import faiss

logger = logging.getLogger(__name__)

RECALL_K, RECALL_WANTED = 10, 0.95


def tune(
    index: "faiss.Index",
    queries: Embeddings,
    vectors: np.ndarray,
    rows: np.ndarray,
    shards: Sequence[Embeddings],
) -> float:
    """Set the least effort that finds enough of the exact neighbours, and return the recall.

    `queries` are the `rows` [Q] of the index, `vectors` [Q, D] the same as faiss compares them.
    """
    lowest, count = _find_exact_scores(queries, shards)
    recall = 0.0
    for effort in _sweep_effort(index):
        hits = search_faiss(index, vectors, RECALL_K, rows)[1]
        recall = _count_reaching(hits, queries, shards, lowest) / max(1, count)
        logger.info("recall@%d %.4f%s", RECALL_K, recall, effort)
        if recall >= RECALL_WANTED:
            return recall
    logger.warning(
        "recall@%d is %.1f %% at the greatest effort; a finer index, or none, finds more",
        RECALL_K,
        100 * recall,
    )
    return recall


def _find_exact_scores(queries: Embeddings, shards: Sequence[Embeddings]) -> tuple[np.ndarray, int]:
    """Return the exact 10th best score of each query [Q], and how many neighbours these are.

    The query itself is left out. A query with fewer than ten neighbours has the last one's score.
    """
    scores = [nearest(queries, shard, k=RECALL_K, keep_self=False).scores for shard in shards]
    best = -np.sort(-np.concatenate(scores, axis=1), axis=1)[:, :RECALL_K]
    valid = best > -np.inf
    return np.where(valid, best, np.inf).min(axis=1), int(valid.sum())


def _count_reaching(
    hits: np.ndarray, queries: Embeddings, shards: Sequence[Embeddings], lowest: np.ndarray
) -> int:
    """Count the rows `hits` [Q, 10] that score at least `lowest` [Q].

    Rows that equal an exact neighbour count like it. -1 = no row.
    """
    rows, column = np.unique(np.maximum(hits, 0), return_inverse=True)
    vectors = ConcatenatedRows([np.asarray(shard.vectors) for shard in shards])[rows]
    both = (queries.vectors, queries.names), (vectors, np.zeros(len(rows), "S1"))
    left, right = make_vector_sets(*both, metric=queries.metric)
    asking = np.repeat(np.arange(len(hits)), hits.shape[1])
    scores = to_user_units(score_pairs(left, asking, right, column.ravel()), right).reshape(
        hits.shape
    )
    return int(np.count_nonzero((scores >= lowest[:, None]) & (hits >= 0)))


def _sweep_effort(index: "faiss.Index") -> Iterator[str]:
    """Raise the index's effort step by step, and yield each time a text that says what it is."""
    import faiss

    inverted = faiss.try_extract_index_ivf(index)
    graph = faiss.downcast_index(index)
    if inverted is not None:
        for number in _double(1, inverted.nlist):
            inverted.nprobe = number
            yield f" with {number} of {inverted.nlist} lists visited"
    elif isinstance(graph, faiss.IndexHNSW):
        for number in _double(16, 1024):
            graph.hnsw.efSearch = number
            yield f" with efSearch {number}"
    else:
        yield ""


def _double(first: int, last: int) -> Iterator[int]:
    while first < last:
        yield first
        first *= 2
    yield last


def search_faiss(
    index: "faiss.Index", vectors: np.ndarray, k: int, self_rows: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """Return (scores, rows) [Q, k] of faiss, row -1 where there are fewer.

    The gallery row `self_rows` [Q] is left out for its query.
    """
    scores, rows = index.search(vectors, k if self_rows is None else k + 1)
    if self_rows is None:
        return scores, rows
    last = np.argsort(rows == self_rows[:, None], axis=1, kind="stable")[:, :k]
    rows = np.where(rows == self_rows[:, None], -1, rows)
    return np.take_along_axis(scores, last, axis=1), np.take_along_axis(rows, last, axis=1)
