"""Which gallery rows are relevant to which query, and their exact scores."""

from dataclasses import dataclass, replace

import numpy as np

from mltool.exact.blocks import blocks
from mltool.exact.vector_set import VectorSet, score_table
from mltool.files.concatenated_rows import release

TABLE = 2**22  # exact scores computed at a time
TOUCHED = 128  # rows of a map read here and there, with all around them, until they are given back


@dataclass(frozen=True, eq=False)
class Relevance:
    """What is relevant to whom. Rows with the same code >= 0 are; `own` is left out."""

    query_codes: np.ndarray  # [Q] int32, -1 = nothing is relevant
    gallery_codes: np.ndarray  # [N] int32, -1 = relevant to nobody
    own: np.ndarray  # [Q] int64, the gallery row with the query's name, -1 = none
    places: np.ndarray  # [N] int64, the order of ties

    def counts(self) -> np.ndarray:
        """Relevant rows of each query [Q], int64."""
        known = self.gallery_codes[self.gallery_codes >= 0]
        sizes = np.bincount(known, minlength=int(self.query_codes.max(initial=0)) + 1)
        counts = np.where(self.query_codes >= 0, sizes[self.query_codes], 0)
        with_own = np.flatnonzero((self.own >= 0) & (counts > 0))
        counts[with_own] -= self.gallery_codes[self.own[with_own]] == self.query_codes[with_own]
        return counts

    def part(self, rows: slice) -> "Relevance":
        """The same for some of the queries."""
        return replace(self, query_codes=self.query_codes[rows], own=self.own[rows])


def relevant_scores(
    queries: VectorSet, gallery: VectorSet, relevance: Relevance, counts: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Exact scores and places of the relevant rows [P], best first within each query."""
    by_code = np.argsort(relevance.gallery_codes, kind="stable")
    codes = relevance.gallery_codes[by_code]
    asking = np.flatnonzero(counts)
    asking = asking[np.argsort(relevance.query_codes[asking], kind="stable")]
    wanted, first = np.unique(relevance.query_codes[asking], return_index=True)
    scores, owners, columns = [np.empty(0)], [np.empty(0, np.int64)], [np.empty(0, np.int64)]
    touched = 0
    for code, alike in zip(wanted, np.split(asking, first)[1:], strict=True):
        low, high = np.searchsorted(codes, (code, code + 1))
        members = by_code[low:high]
        for part in blocks(len(alike), max(1, TABLE // len(members))):
            table = score_table(queries, alike[part], gallery, members)
            kept = members != relevance.own[alike[part]][:, None]
            scores.append(table[kept])
            owners.append(np.repeat(alike[part], kept.sum(axis=1)))
            columns.append(np.broadcast_to(members, table.shape)[kept])
        touched += len(alike) + len(members)
        if touched > TOUCHED:
            release(queries.vectors)
            release(gallery.vectors)
            touched = 0
    found, places = np.concatenate(scores), relevance.places[np.concatenate(columns)]
    order = np.lexsort((places, -found, np.concatenate(owners)))
    return found[order], places[order]
