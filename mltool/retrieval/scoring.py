"""How well a model's vectors retrieve: metrics, counts, intervals, values of every query."""

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from mltool.clusterers.kmeans import kmeans
from mltool.components import suggest
from mltool.errors import UsageError
from mltool.exact.knn import Ranks, Resources, rank_relevant
from mltool.exact.relevance import Relevance
from mltool.files.embeddings import Embeddings
from mltool.retrieval import classification, clustering
from mltool.retrieval.classification import Probe
from mltool.retrieval.metrics import NAMED, average_over_queries, find_depth, find_metric
from mltool.retrieval.query_gallery import (
    as_vector_sets,
    check_comparable,
    find_self_rows,
    match_labels,
    split_roles,
)

logger = logging.getLogger(__name__)

DEFAULT_METRICS = ("precision@1", "recall@10", "r_precision", "map@r")
PADDED = 2**22  # ranks laid out at a time for the metrics


@dataclass(frozen=True, eq=False)
class Report:
    """What `evaluate` measured; fractions from 0 to 1, NaN where nothing is defined."""

    metrics: dict[str, float]  # means over the queries that have relevant rows
    counts: dict[str, int]
    queries: Embeddings  # whose values the next two are
    per_query: dict[str, np.ndarray]  # [Q] each, NaN without relevant rows
    relevant: np.ndarray  # [Q] relevant rows of each query
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)  # 95 %


def evaluate(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    keep_self: bool = False,
    any_model: bool = False,
    bootstrap: int = 0,
    seed: int = 0,
    resources: Resources | None = None,
) -> Report:
    """Rank the gallery for every query and score the rankings.

    Without a gallery all rows are compared with all, or, with columns `is_query` and
    `is_gallery`, queries with gallery. A gallery row with the query's name is left out unless
    `keep_self`. Rows are relevant whose known label is the query's; queries without any are left
    out of the means. `nmi`, `ami` and `f1` are of k-means with `seed` over the labelled queries,
    with as many clusters as classes. `knn-accuracy@K` (K = 5) and `linear-accuracy` classify the
    queries by the labelled rows of a gallery, see `classification`. `bootstrap` resamplings of the
    queries give 95 % intervals. Raises UsageError for an unknown metric and for a classification
    without a gallery, InputError where the two do not fit.
    """
    ranking, clustered, classified = _split_metrics(metrics)
    if gallery is None:
        queries, gallery = split_roles(queries)
    else:
        check_comparable(queries, gallery, any_model=any_model)
    query_label_ids, gallery_label_ids = match_labels(queries, gallery)
    left, right = as_vector_sets(queries, gallery)
    self_rows = find_self_rows(queries.names, None if gallery is None else gallery.names)
    self_rows = np.full(len(queries), -1) if keep_self else self_rows
    relevance = Relevance(query_label_ids, gallery_label_ids, self_rows, right.tie_order())
    relevant = relevance.count_relevant()
    blocks: Iterable[Ranks] = ()
    if ranking:
        deepest = np.max([find_depth(name, relevant, len(right)) for name in ranking], axis=0)
        blocks = rank_relevant(
            left, right, relevance, depth=deepest, resources=resources or Resources()
        )
    per_query, tied = _score(blocks, ranking, len(queries))
    if classified:
        if gallery is None:
            raise UsageError(
                f"{classified[0]} classifies by other labelled vectors; give a gallery"
            )
        labels = classification.order_labels(queries, gallery)
        probe = Probe(left, right, *labels, self_rows, seed, resources or Resources())
        per_query |= {
            name: np.where(relevant > 0, probe.score(name), np.nan) for name in classified
        }
    counts = _count(relevance, relevant, tied)
    _warn(counts)
    means = {name: average_over_queries(values) for name, values in per_query.items()}
    means |= _score_clusters(queries, query_label_ids, clustered, seed, resources or Resources())
    intervals = _resample(per_query, bootstrap, seed) if bootstrap else {}
    ordered = {name: means[name] for name in metrics}
    return Report(ordered, counts, queries, per_query, relevant, intervals)


def score(
    vectors: np.ndarray,
    labels: np.ndarray,
    names: np.ndarray | Sequence[str] | None = None,
    *,
    metrics: Sequence[str] = DEFAULT_METRICS,
    metric: str = "cosine",
) -> dict[str, float]:
    """Score vectors [N, D] with integer labels [N], all against all, for validation."""
    if names is None:
        names = np.char.zfill(np.arange(len(vectors)).astype("S"), 10)
    embeddings = Embeddings(names, vectors, labels, metric=metric)  # type: ignore[arg-type]
    return evaluate(embeddings, metrics=metrics).metrics


def average_by_class(report: Report) -> tuple[list[str], np.ndarray, dict[str, np.ndarray]]:
    """Average the values of the queries of each class.

    Returns (labels [C] as text, queries [C], mean of each metric [C]).
    """
    labels = report.queries.labels
    classes, row = np.unique(labels, return_inverse=True)
    texts = report.queries.label_names
    names = [texts[k] if k >= 0 and texts else str(k) if k >= 0 else "" for k in classes.tolist()]
    means = {}
    for name, values in report.per_query.items():
        defined = ~np.isnan(values)
        sums = np.bincount(row[defined], values[defined], minlength=len(classes))
        number = np.bincount(row[defined], minlength=len(classes))
        means[name] = np.where(number > 0, sums / np.maximum(number, 1), np.nan)
    return names, np.bincount(row, minlength=len(classes)), means


def _count(relevance: Relevance, relevant: np.ndarray, tied: int) -> dict[str, int]:
    label_ids = relevance.query_label_ids
    return {
        "queries": len(label_ids),
        "without_positives": int(np.count_nonzero(relevant == 0)),
        "gallery": len(relevance.gallery_label_ids),
        "self_removed": int(np.count_nonzero(relevance.self_rows >= 0)),
        "ties": tied,
        "classes": len(np.unique(label_ids[label_ids >= 0])),
    }


def _split_metrics(names: Sequence[str]) -> tuple[list[str], list[str], list[str]]:
    """Split names into metrics of (ranking, clusters, classes). Raises UsageError for others."""
    classified = [name for name in names if classification.is_classification(name)]
    ranking = [name for name in names if name not in (*clustering.NAMED, *classified)]
    for name in ranking:
        try:
            find_metric(name)
        except UsageError as error:
            choices = [*NAMED, "recall@K", *clustering.NAMED, *classification.NAMES]
            hint = suggest(name, choices)
            raise UsageError(
                f"no metric {name!r}{hint} (there are: {', '.join(choices)})"
            ) from error
    return ranking, [name for name in names if name in clustering.NAMED], classified


def _score(
    blocks: Iterable[Ranks], names: Sequence[str], count: int
) -> tuple[dict[str, np.ndarray], int]:
    """Return the values [Q] of each metric, and how many queries have ties."""
    values = {name: np.full(count, np.nan) for name in names}
    tied = 0
    for block in blocks:
        tied += len(np.unique(np.searchsorted(block.starts, np.flatnonzero(block.tied), "right")))
        for rows in _group_by_size(np.diff(block.starts)):
            padded, relevant = block.pad(rows)
            for name in names:
                values[name][block.first + rows] = find_metric(name)(padded, relevant)
    return values, tied


def _group_by_size(relevant: np.ndarray) -> Iterator[np.ndarray]:
    """Yield rows whose ranks fit into one table that is at least half full."""
    size = np.ceil(np.log2(np.maximum(relevant, 1))).astype(np.int64)
    for exponent in np.unique(size):
        rows = np.flatnonzero(size == exponent)
        step = max(1, PADDED >> int(exponent))
        yield from (rows[start : start + step] for start in range(0, len(rows), step))


def _score_clusters(
    queries: Embeddings,
    labels: np.ndarray,
    names: Sequence[str],
    seed: int,
    resources: Resources,
) -> dict[str, float]:
    labelled = labels >= 0
    if not names or not labelled.any():
        return dict.fromkeys(names, float("nan"))
    clusters, _ = kmeans(
        queries.take(labelled).vectors,
        seed=seed,
        metric=queries.metric,
        resources=resources,
        k=len(np.unique(labels[labelled])),
    )
    return {name: clustering.NAMED[name](labels[labelled], clusters) for name in names}


def _resample(
    per_query: dict[str, np.ndarray], count: int, seed: int
) -> dict[str, tuple[float, float]]:
    """Return the 2.5 and 97.5 percentiles of the mean over `count` resamplings of the queries."""
    generator = np.random.default_rng(seed)
    table = np.array(list(per_query.values()))  # [metrics, Q]
    table = table[:, ~np.isnan(table).any(axis=0)]
    if not table.size:
        return dict.fromkeys(per_query, (float("nan"), float("nan")))
    number = table.shape[1]
    means = np.empty((count, len(table)))
    for draw in range(count):
        weights = np.bincount(generator.integers(0, number, number), minlength=number)
        means[draw] = table @ weights / number
    low, high = np.percentile(means, (2.5, 97.5), axis=0).tolist()
    return dict(zip(per_query, zip(low, high, strict=True), strict=True))


def _warn(counts: dict[str, int]) -> None:
    if counts["queries"] and counts["without_positives"] == counts["queries"]:
        logger.warning("no query has a relevant row in the gallery, so no metric is defined")
    elif counts["without_positives"]:
        logger.warning(
            "%d of %d queries have no relevant row and are left out of the means",
            counts["without_positives"],
            counts["queries"],
        )
