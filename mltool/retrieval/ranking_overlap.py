"""Compare the rankings of several models: how many of the nearest images they share."""

from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError, escape
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.files.names import examples, find
from mltool.retrieval.neighbours import nearest
from mltool.retrieval.tables import as_json_number

DEPTH = 10  # nearest rows of each query that are compared
OVERLAP = f"overlap@{DEPTH}"


@dataclass(frozen=True)
class Overlap:
    """What two rankings share."""

    first: str
    second: str
    share: float  # see `average_overlap`

    def as_record(self) -> dict[str, object]:
        """Return what JSON holds, where no share is None."""
        return {
            "first": self.first,
            "second": self.second,
            OVERLAP: as_json_number(self.share),
        }


def find_queries(names: np.ndarray, queries: Embeddings, source: str) -> np.ndarray:
    """Find the row [Q] of each name ['S', Q] among queries. Raises InputError if one is missing."""
    rows = find(queries.names, names)
    if (rows < 0).any():
        raise InputError(
            f"{escape(source)} lacks {int((rows < 0).sum()):,} of {len(names):,} queries "
            f"({examples(names[rows < 0])}); embed the same images with every model"
        )
    return rows


def list_nearest(
    queries: Embeddings, gallery: Embeddings | None, rows: np.ndarray, resources: Resources
) -> np.ndarray:
    """Return the names ['S', Q, DEPTH] of the nearest gallery rows of queries [Q], "" beyond.

    The row of the query's name is left out.
    """
    asked = queries if gallery is None else gallery
    hits = nearest(queries.take(rows), asked, k=DEPTH, keep_self=False, resources=resources)
    return np.where(hits.rows >= 0, asked.names[hits.rows], b"")


def average_overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Return the mean over queries of the share of names [Q, k] that both have.

    The share is that of the longer of both lists; empty names count in none. NaN if no query has a
    name.
    """
    shares = []
    for one, other in zip(first, second, strict=True):
        left, right = set(one.tolist()) - {b""}, set(other.tolist()) - {b""}
        if left or right:
            shares.append(len(left & right) / max(len(left), len(right)))
    return float(np.mean(shares)) if shares else float("nan")
