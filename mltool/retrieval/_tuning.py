"""How much of the exact result an index finds, and how hard it has to try."""

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
    parts: Sequence[Embeddings],
) -> float:
    """Set the least effort that finds enough of the exact neighbours; the recall reached.

    `queries` are the `rows` [Q] of the index, `vectors` [Q, D] the same as faiss compares them.
    """
    least, count = _exact(queries, parts)
    recall = 0.0
    for effort in _efforts(index):
        found = search_faiss(index, vectors, RECALL_K, rows)[1]
        recall = _reaching(found, queries, parts, least) / max(1, count)
        logger.info("recall@%d %.4f%s", RECALL_K, recall, effort)
        if recall >= RECALL_WANTED:
            return recall
    logger.warning(
        "recall@%d is %.1f %% at the greatest effort; a finer index, or none, finds more",
        RECALL_K,
        100 * recall,
    )
    return recall


def _exact(queries: Embeddings, parts: Sequence[Embeddings]) -> tuple[np.ndarray, int]:
    """The exact 10th score of each query [Q], without its own row; how many such rows there are.

    Where there are fewer than ten rows it is the last one's.
    """
    found = [nearest(queries, part, k=RECALL_K, keep_self=False).scores for part in parts]
    best = -np.sort(-np.concatenate(found, axis=1), axis=1)[:, :RECALL_K]
    there = best > -np.inf
    return np.where(there, best, np.inf).min(axis=1), int(there.sum())


def _reaching(
    found: np.ndarray, queries: Embeddings, parts: Sequence[Embeddings], least: np.ndarray
) -> int:
    """How many of the rows `found` [Q, 10] score at least `least` [Q]: equal rows will do."""
    rows, place = np.unique(np.maximum(found, 0), return_inverse=True)
    vectors = ConcatenatedRows([np.asarray(part.vectors) for part in parts])[rows]
    both = (queries.vectors, queries.names), (vectors, np.zeros(len(rows), "S1"))
    left, right = make_vector_sets(*both, metric=queries.metric)
    asking = np.repeat(np.arange(len(found)), found.shape[1])
    scores = to_user_units(score_pairs(left, asking, right, place.ravel()), right).reshape(
        found.shape
    )
    return int(np.count_nonzero((scores >= least[:, None]) & (found >= 0)))


def _efforts(index: "faiss.Index") -> Iterator[str]:
    """Raise the index's effort step by step, and say each time what it is."""
    import faiss

    inverted = faiss.try_extract_index_ivf(index)
    graph = faiss.downcast_index(index)
    if inverted is not None:
        for number in _doubled(1, inverted.nlist):
            inverted.nprobe = number
            yield f" with {number} of {inverted.nlist} lists visited"
    elif isinstance(graph, faiss.IndexHNSW):
        for number in _doubled(16, 1024):
            graph.hnsw.efSearch = number
            yield f" with efSearch {number}"
    else:
        yield ""


def _doubled(first: int, last: int) -> Iterator[int]:
    while first < last:
        yield first
        first *= 2
    yield last


def search_faiss(
    index: "faiss.Index", vectors: np.ndarray, k: int, own: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """(scores, rows) [Q, k] of faiss, without the rows `own` [Q]; -1 where there are fewer."""
    scores, rows = index.search(vectors, k if own is None else k + 1)
    if own is None:
        return scores, rows
    last = np.argsort(rows == own[:, None], axis=1, kind="stable")[:, :k]
    rows = np.where(rows == own[:, None], -1, rows)
    return np.take_along_axis(scores, last, axis=1), np.take_along_axis(rows, last, axis=1)
