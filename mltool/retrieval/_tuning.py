"""How much of the exact result an index finds, and how hard it has to try."""

import logging
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from mltool.files.embeddings import Embeddings
from mltool.retrieval.search import nearest

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
    exact = _exact(queries, parts)
    recall = 0.0
    for effort in _efforts(index):
        found = search_faiss(index, vectors, RECALL_K, rows)[1]
        same = (exact[:, :, None] == found[:, None, :]) & (exact >= 0)[:, :, None]
        recall = float(same.sum() / max(1, (exact >= 0).sum()))
        logger.info("recall@%d %.4f%s", RECALL_K, recall, effort)
        if recall >= RECALL_WANTED:
            return recall
    logger.warning(
        "recall@%d is %.1f %% at the greatest effort; a finer index, or none, finds more",
        RECALL_K,
        100 * recall,
    )
    return recall


def _exact(queries: Embeddings, parts: Sequence[Embeddings]) -> np.ndarray:
    """Rows [Q, 10] of the exact nearest, counted over all parts, without the query's own."""
    scores, rows, first = [], [], 0
    for part in parts:
        found = nearest(queries, part, k=RECALL_K, keep_self=False)
        rows.append(np.where(found.rows >= 0, found.rows + first, -1))
        scores.append(found.scores)
        first += len(part)
    order = np.argsort(-np.concatenate(scores, axis=1), axis=1, kind="stable")[:, :RECALL_K]
    return np.take_along_axis(np.concatenate(rows, axis=1), order, axis=1)


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
