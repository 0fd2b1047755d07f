"""Ranking metrics: from the ranks of the relevant rows to one value a query.

Every metric is `f(ranks, relevant) -> values`. `ranks` [Q, R] holds the 0-based ranks of a query's
relevant rows, ascending, padded at the end with anything; `relevant` [Q] says how many there are.
The query itself is not ranked. A query without relevant rows has no value: NaN, never 0.
Definitions: Musgrave, Belongie, Lim, "A Metric Learning Reality Check", 2020 (R-precision, MAP@R);
Oh Song et al., "Deep Metric Learning via Lifted Structured Feature Embedding", 2016 (recall@k).
"""

import functools
import re
from collections.abc import Callable

import numpy as np

from mltool.errors import UsageError

Metric = Callable[[np.ndarray, np.ndarray], np.ndarray]


def precision_at_1(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """1 if the nearest row is relevant, else 0. `ranks` [Q, R], `relevant` [Q] -> [Q]."""
    return recall_at_k(ranks, relevant, k=1)


def recall_at_k(ranks: np.ndarray, relevant: np.ndarray, *, k: int) -> np.ndarray:
    """1 if any of the k nearest rows is relevant, else 0 (the field's recall: a hit rate)."""
    hit = (ranks < k) & _present(ranks, relevant)
    return _defined(hit.any(axis=1).astype(np.float64), relevant)


def r_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Fraction of relevant rows among the R nearest, R = number of relevant rows."""
    hit = (ranks < relevant[:, None]) & _present(ranks, relevant)
    return _divide(hit.sum(axis=1), relevant)


def map_at_r(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """(1/R) sum over the relevant rows at rank i <= R of the precision at i."""
    hit = (ranks < relevant[:, None]) & _present(ranks, relevant)
    return _divide(np.where(hit, _precision_at_hits(ranks), 0.0).sum(axis=1), relevant)


def average_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """(1/R) sum over all relevant rows of the precision at their rank (no interpolation)."""
    there = _present(ranks, relevant)
    return _divide(np.where(there, _precision_at_hits(ranks), 0.0).sum(axis=1), relevant)


def reciprocal_rank(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """1 / rank of the nearest relevant row, ranks counted from 1."""
    first = ranks[:, :1] if ranks.shape[1] else np.zeros((len(ranks), 1), np.int64)
    return _defined(1.0 / (first[:, 0] + 1.0), relevant)


NAMED: dict[str, Metric] = {
    "precision@1": precision_at_1,
    "r_precision": r_precision,
    "map@r": map_at_r,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def find(name: str) -> Metric:
    """The metric called `name`: one of NAMED, or `recall@k` with any k. Raises UsageError."""
    if name in NAMED:
        return NAMED[name]
    depth = re.fullmatch(r"recall@([1-9][0-9]*)", name)
    if depth:
        return functools.partial(recall_at_k, k=int(depth[1]))
    raise UsageError(
        f"no ranking metric {name!r} (there are: {', '.join(NAMED)}, recall@K with K >= 1)"
    )


def depth(name: str, relevant: np.ndarray, size: int) -> np.ndarray:
    """Ranks [Q] from which on the metric's value does not depend on them any more.

    `relevant` [Q], `size` rows ranked. Raises UsageError for an unknown name.
    """
    if name in ("r_precision", "map@r"):
        return relevant
    if name in ("map", "mrr"):
        return np.full(len(relevant), size)
    find(name)
    return np.full(len(relevant), min(size, int(name.partition("@")[2])))


def _present(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return np.arange(ranks.shape[1]) < relevant[:, None]


def _precision_at_hits(ranks: np.ndarray) -> np.ndarray:
    # the j-th relevant row at rank r (from 0) has j + 1 relevant rows among the first r + 1
    return np.arange(1, ranks.shape[1] + 1) / (ranks + 1.0)


def _divide(sums: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return _defined(sums / np.maximum(relevant, 1), relevant)


def _defined(values: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return np.where(relevant > 0, values, np.nan)
