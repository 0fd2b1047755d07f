"""Ranking metrics: from the ranks of the relevant rows to one value a query.

Every metric is `f(ranks, relevant) -> values`. `ranks` [Q, R] holds the 0-based ranks of a query's
relevant rows, ascending, padded at the end with anything; `relevant` [Q] says how many they are.
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
    """Return 1 if the nearest row is relevant, else 0. `ranks` [Q, R], `relevant` [Q] -> [Q]."""
    return recall_at_k(ranks, relevant, k=1)


def recall_at_k(ranks: np.ndarray, relevant: np.ndarray, *, k: int) -> np.ndarray:
    """Return 1 if any of the k nearest rows is relevant, else 0: the field's recall, a hit rate."""
    hit = (ranks < k) & _mark_valid(ranks, relevant)
    return _blank_undefined(hit.any(axis=1).astype(np.float64), relevant)


def r_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the fraction of relevant rows among the R nearest, R = number of relevant rows."""
    hit = (ranks < relevant[:, None]) & _mark_valid(ranks, relevant)
    return _divide_by_relevant(hit.sum(axis=1), relevant)


def map_at_r(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return (1/R) sum over the relevant rows at rank i <= R of the precision at i."""
    hit = (ranks < relevant[:, None]) & _mark_valid(ranks, relevant)
    return _divide_by_relevant(
        np.where(hit, _compute_precision_at_hits(ranks), 0.0).sum(axis=1), relevant
    )


def average_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return (1/R) sum over all relevant rows of the precision at their rank.

    There is no interpolation; `revisited.trapezoidal_average_precision` is another formula.
    """
    valid = _mark_valid(ranks, relevant)
    return _divide_by_relevant(
        np.where(valid, _compute_precision_at_hits(ranks), 0.0).sum(axis=1), relevant
    )


def reciprocal_rank(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return 1 / rank of the nearest relevant row, ranks counted from 1."""
    first = ranks[:, :1] if ranks.shape[1] else np.zeros((len(ranks), 1), np.int64)
    return _blank_undefined(1.0 / (first[:, 0] + 1.0), relevant)


NAMED: dict[str, Metric] = {
    "precision@1": precision_at_1,
    "r_precision": r_precision,
    "map@r": map_at_r,
    "map": average_precision,
    "mrr": reciprocal_rank,
}


def find_metric(name: str) -> Metric:
    """Find the metric called `name`: one of NAMED, or `recall@k` with any k. Raises UsageError."""
    if name in NAMED:
        return NAMED[name]
    match = re.fullmatch(r"recall@([1-9][0-9]*)", name)
    if match:
        return functools.partial(recall_at_k, k=int(match[1]))
    raise UsageError(
        f"no ranking metric {name!r} (there are: {', '.join(NAMED)}, recall@K with K >= 1)"
    )


def find_depth(name: str, relevant: np.ndarray, size: int) -> np.ndarray:
    """Find the ranks [Q] from which on a metric's value does not depend on them any more.

    `relevant` [Q], `size` rows ranked. Raises UsageError for an unknown name.
    """
    if name in ("r_precision", "map@r"):
        return relevant
    if name in ("map", "mrr"):
        return np.full(len(relevant), size)
    find_metric(name)
    return np.full(len(relevant), min(size, int(name.partition("@")[2])))


def average_over_queries(values: np.ndarray) -> float:
    """Return the mean of values [Q] over the queries that have one; NaN if none has."""
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else float("nan")


def _mark_valid(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return np.arange(ranks.shape[1]) < relevant[:, None]


def _compute_precision_at_hits(ranks: np.ndarray) -> np.ndarray:
    # the j-th relevant row at rank r (from 0) has j + 1 relevant rows among the first r + 1
    return np.arange(1, ranks.shape[1] + 1) / (ranks + 1.0)


def _divide_by_relevant(sums: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return _blank_undefined(sums / np.maximum(relevant, 1), relevant)


def _blank_undefined(values: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    return np.where(relevant > 0, values, np.nan)
