"""Say which gallery rows are relevant to which query, and score these exactly.

The query has label 0, and so have the gallery rows a and c; row c is the query itself:

>>> from mltool.exact.vector_set import make_vector_sets
>>> queries, gallery = make_vector_sets(
...     (np.array([[1.0]]), np.array([b"c"])),
...     (np.array([[0.5], [0.75], [1.0]]), np.array([b"a", b"b", b"c"])),
...     metric="dot",
... )
>>> relevance = Relevance(
...     query_label_ids=np.array([0]), gallery_label_ids=np.array([0, 1, 0]),
...     self_rows=np.array([2]), tie_order=gallery.tie_order(),
... )
>>> relevance.count_relevant().tolist()
[1]
>>> scores, tie_order = score_relevant(queries, gallery, relevance, np.array([1]))
>>> scores.tolist(), tie_order.tolist()
([0.5], [0])

Threads: a Relevance never changes, so any number of threads may read it.
"""

from dataclasses import dataclass, replace

import numpy as np

from mltool.exact.blocks import split_rows
from mltool.exact.vector_set import VectorSet, score_table
from mltool.files.concatenated_rows import release

TABLE = 2**22  # exact scores computed at a time
TOUCHED = 128  # rows of a map read here and there, with all around them, until they are given back


@dataclass(frozen=True, eq=False)
class Relevance:
    """What is relevant to whom: rows of the same label id >= 0, but never the query itself."""

    query_label_ids: np.ndarray  # [Q] int32, -1 = nothing is relevant
    gallery_label_ids: np.ndarray  # [N] int32, -1 = relevant to nobody
    self_rows: np.ndarray  # [Q] int64, the gallery row of the query itself, left out; -1 = none
    tie_order: np.ndarray  # [N] int64, of two rows with equal scores the lower is the nearer

    def count_relevant(self) -> np.ndarray:
        """Count the relevant rows of each query: [Q] int64."""
        labelled = self.gallery_label_ids[self.gallery_label_ids >= 0]
        sizes = np.bincount(labelled, minlength=int(self.query_label_ids.max(initial=0)) + 1)
        counts = np.where(self.query_label_ids >= 0, sizes[self.query_label_ids], 0)
        with_self = np.flatnonzero((self.self_rows >= 0) & (counts > 0))
        self_label_ids = self.gallery_label_ids[self.self_rows[with_self]]
        counts[with_self] -= self_label_ids == self.query_label_ids[with_self]
        return counts

    def view(self, rows: slice) -> "Relevance":
        """Return the relevance to consecutive queries."""
        return replace(
            self, query_label_ids=self.query_label_ids[rows], self_rows=self.self_rows[rows]
        )


def score_relevant(
    queries: VectorSet, gallery: VectorSet, relevance: Relevance, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Score the relevant rows of all queries exactly.

    `counts` [Q] is how many each query has. Returns their scores and their tie order [P], the
    queries one after the other, best first within each.
    """
    by_label = np.argsort(relevance.gallery_label_ids, kind="stable")
    label_ids = relevance.gallery_label_ids[by_label]
    asking = np.flatnonzero(counts)
    asking = asking[np.argsort(relevance.query_label_ids[asking], kind="stable")]
    asked, first = np.unique(relevance.query_label_ids[asking], return_index=True)
    scores, owners, columns = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    touched = 0
    # a label at a time: all its queries with all its gallery rows make one table
    for label_id, alike in zip(asked, np.split(asking, first)[1:], strict=True):
        low, high = np.searchsorted(label_ids, (label_id, label_id + 1))
        members = by_label[low:high]
        for block in split_rows(len(alike), max(1, TABLE // len(members))):
            table = score_table(queries, alike[block], gallery, members)
            kept = members != relevance.self_rows[alike[block]][:, None]
            scores.append(table[kept])
            owners.append(np.repeat(alike[block], kept.sum(axis=1)))
            columns.append(np.broadcast_to(members, table.shape)[kept])
        touched += len(alike) + len(members)
        if touched > TOUCHED:
            release(queries.vectors)
            release(gallery.vectors)
            touched = 0
    exact, tie_order = np.concatenate(scores), relevance.tie_order[np.concatenate(columns)]
    order = np.lexsort((tie_order, -exact, np.concatenate(owners)))
    return exact[order], tie_order[order]
