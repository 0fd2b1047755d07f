"""The protocol of the revisited Oxford and Paris benchmarks.

Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking (2018). The three setups differ in what is right and in what is taken out of the
ranking as if it were not valid; a query with nothing right in a setup is left out of its means.
"""

import itertools
import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from mltool.errors import InputError
from mltool.exact import knn
from mltool.exact.relevance import Relevance
from mltool.files import shards
from mltool.files.embeddings import Embeddings
from mltool.files.landmarks import KINDS, Answer, GroundTruth, stem
from mltool.files.names import StringArray, check_unique, examples, find
from mltool.retrieval.metrics import average_over_queries
from mltool.retrieval.query_gallery import as_vector_sets, check_comparable
from mltool.retrieval.scoring import Report

logger = logging.getLogger(__name__)

SETUPS = {  # kinds that are right, kinds that are taken out
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
DEPTHS = (1, 5, 10)


def trapezoidal_average_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Return the area under the precision-recall curve by trapezoids.

    The arguments are those of `retrieval.metrics`, whose `average_precision` is another formula.

    The j-th of R relevant rows (from 0) at rank r adds (j / r + (j + 1) / (r + 1)) / 2R, where
    0 / 0 is 1. `ranks` [Q, R], `relevant` [Q] -> [Q], NaN without relevant rows.
    """
    nth = np.arange(ranks.shape[1])
    valid = nth < relevant[:, None]
    before = np.where(ranks == 0, 1.0, nth / np.maximum(ranks, 1))
    heights = np.where(valid, before + (nth + 1) / (ranks + 1), 0.0)
    areas = heights.sum(axis=1) / (2.0 * np.maximum(relevant, 1))
    return np.where(relevant > 0, areas, np.nan)


def precision_at_k(ranks: np.ndarray, relevant: np.ndarray, *, k: int) -> np.ndarray:
    """Return the relevant share of the k best rows.

    If the last relevant row stands above the k-th, the share is of the rows down to that one.

    `ranks` [Q, R], `relevant` [Q] -> [Q], NaN without relevant rows.
    """
    valid = np.arange(ranks.shape[1]) < relevant[:, None]
    last = np.where(valid, ranks + 1, 0).max(axis=1, initial=0)
    looked_at = np.clip(last, 1, k)
    hits = (valid & (ranks < looked_at[:, None])).sum(axis=1)
    return np.where(relevant > 0, hits / looked_at, np.nan)


def evaluate(
    queries: Embeddings,
    gallery: Embeddings,
    truth: GroundTruth,
    *,
    distractors: Embeddings | None = None,
    any_model: bool = False,
    resources: knn.Resources | None = None,
) -> Report:
    """Rank gallery and distractors for every query, and score the three setups by mAP and mP@k.

    Rows are joined with the ground truth by the names of their files, without folder and suffix:
    queries and gallery hold exactly its images. Distractors are always wrong. Raises InputError
    where names or vectors do not fit.
    """
    check_comparable(queries, gallery, any_model=any_model)
    number = np.argsort(_match_names(queries.names, truth.queries, "queries"))
    rows = _match_names(gallery.names, truth.gallery, "gallery")
    answers = [
        {kind: rows[truth.answers[query][kind]] for kind in KINDS} for query in number.tolist()
    ]
    ranked = (
        gallery if distractors is None else _append_distractors(gallery, distractors, any_model)
    )
    left, right = as_vector_sets(queries, ranked)
    relevance = Relevance(
        *_group_by_landmark(answers, len(ranked)),
        self_rows=np.full(len(queries), -1),  # no query is an image of the gallery
        tie_order=right.tie_order(),
    )
    resources = resources or knn.Resources()
    if resources.precision == "auto":  # queries are few: products are cheap, exact scores are not
        resources = replace(resources, precision="float64")
    blocks = knn.rank_relevant(left, right, relevance, resources=resources)
    per_query, tied = _score(blocks, answers, np.argsort(relevance.tie_order))
    counts = _count(per_query, len(gallery), len(ranked) - len(gallery))
    relevant = np.array([len(answer["easy"]) + len(answer["hard"]) for answer in answers])
    means = {name: average_over_queries(values) for name, values in per_query.items()}
    return Report(means, counts | {"ties": tied}, queries, per_query, relevant)


def _match_names(names: np.ndarray, wanted: np.ndarray, side: str) -> np.ndarray:
    """Find the row of each wanted stem ['S', M] in `names` ['S', M].

    Raises InputError for a stem that is missing, unexpected or not unique.
    """
    stems = StringArray.from_texts(map(stem, names.tolist())).to_array()
    rows = find(stems, wanted)
    if (rows < 0).any():
        lacking = wanted[rows < 0]
        raise InputError(
            f"the {side} lack{'s' * (side == 'gallery')} {len(lacking):,} of {len(wanted):,} "
            f"images of the ground truth ({examples(lacking)}); embed all of them"
        )
    unexpected = names[find(wanted, stems) < 0]
    if len(unexpected):
        remedy = {"queries": "embed the queries alone", "gallery": "give others as --distractors"}
        raise InputError(
            f"the ground truth does not name {len(unexpected):,} of the {side} "
            f"({examples(unexpected)}); {remedy[side]}"
        )
    check_unique(stems, f"the {side}, without folders and suffixes")
    return rows


def _append_distractors(
    gallery: Embeddings, distractors: Embeddings, any_model: bool
) -> Embeddings:
    both = [
        replace(each, labels=np.full(len(each), -1), label_names=(), columns={})
        for each in (gallery, distractors)
    ]
    if any_model:
        both[1] = replace(both[1], space=both[0].space)
    return shards.join(("the gallery", "the distractors"), both)


def _group_by_landmark(answers: Sequence[Answer], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Give queries [Q] and gallery rows [size] label ids, equal where the ground truth joins them.

    Queries of one landmark name much the same rows, so that ranking for each the rows of all of
    them takes hardly more than ranking the rows of that query, and no list of pairs.
    """
    from scipy.sparse import coo_array  # takes as long as all other imports together
    from scipy.sparse.csgraph import connected_components

    named = [np.concatenate([answer[kind] for kind in KINDS]) for answer in answers]
    owner = np.repeat(np.arange(len(named)), [len(rows) for rows in named])
    used, column = np.unique(np.concatenate(named), return_inverse=True)
    nodes = len(named) + len(used)
    edges = coo_array((np.ones(len(owner)), (owner, len(named) + column)), shape=(nodes, nodes))
    _, label_ids = connected_components(edges, directed=False)
    of_gallery = np.full(size, -1, np.int32)
    of_gallery[used] = label_ids[len(named) :]
    return label_ids[: len(named)].astype(np.int32), of_gallery


def _score(
    blocks: Iterable[knn.Ranks], answers: Sequence[Answer], row_at: np.ndarray
) -> tuple[dict[str, np.ndarray], int]:
    """Return the values [Q] of every measure, and how many queries have ties.

    `row_at` [N] is the gallery row at each position in the order of ties.
    """
    measures = ("map", *(f"mp@{k}" for k in DEPTHS))
    names = [f"{measure}_{setup}" for measure in measures for setup in SETUPS]
    per_query = {name: np.full(len(answers), np.nan) for name in names}
    tied = 0
    for block in blocks:
        for number, (start, stop) in enumerate(itertools.pairwise(block.starts.tolist())):
            query, inside = block.first + number, slice(start, stop)
            kinds = _list_kinds(answers[query], row_at[block.tie_order[inside]])
            for name, value in _measure(kinds, block.ranks[inside]).items():
                per_query[name][query] = value
            tied += _is_tied(kinds, block.scores[inside], block.tied[inside])
    return per_query, tied


def _list_kinds(answer: Answer, rows: np.ndarray) -> np.ndarray:
    """Return the kind of each gallery row ['U', n], empty where the answer does not name it."""
    kinds = np.full(len(rows), "", "U4")
    for kind in KINDS:
        kinds[np.isin(rows, answer[kind])] = kind
    return kinds


def _measure(kinds: np.ndarray, ranks: np.ndarray) -> dict[str, float]:
    """Return every measure of one query from kinds and ranks [n] of its rows, best first."""
    values = {}
    for setup, (right, out) in SETUPS.items():
        is_right, is_ignored = np.isin(kinds, right), np.isin(kinds, out)
        kept = (ranks - np.cumsum(is_ignored))[is_right][None, :]
        number = np.array([kept.shape[1]])
        values[f"map_{setup}"] = trapezoidal_average_precision(kept, number).item()
        for k in DEPTHS:
            values[f"mp@{k}_{setup}"] = precision_at_k(kept, number, k=k).item()
    return values


def _is_tied(kinds: np.ndarray, scores: np.ndarray, outside: np.ndarray) -> bool:
    """Return whether a right row scores like a row of another kind, or one `outside` these."""
    right = np.isin(kinds, SETUPS["medium"][0])
    equal = (scores[1:] == scores[:-1]) & (kinds[1:] != kinds[:-1])
    return bool((outside & right).any() or (equal & (right[1:] | right[:-1])).any())


def _count(per_query: Mapping[str, np.ndarray], gallery: int, distractors: int) -> dict[str, int]:
    counts = {"queries": len(per_query["map_easy"])}
    for setup in SETUPS:
        without = int(np.isnan(per_query[f"map_{setup}"]).sum())
        if without == counts["queries"]:
            logger.warning("no query has anything to find in the setup %s", setup)
        counts[f"without_positives_{setup}"] = without
    return counts | {"gallery": gallery, "distractors": distractors}
