"""The protocol of the revisited Oxford and Paris benchmarks.

Radenovic, Iscen, Tolias, Avrithis, Chum: Revisiting Oxford and Paris: Large-Scale Image Retrieval
Benchmarking (2018). The three setups differ in what is right and in what is taken out of the
ranking as if it were not there; a query with nothing right in a setup is left out of its means.
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
from mltool.retrieval.query_gallery import as_vector_sets, check_comparable
from mltool.retrieval.scoring import Report

logger = logging.getLogger(__name__)

SETUPS = {  # kinds that are right, kinds that are taken out
    "easy": (("easy",), ("hard", "junk")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("easy", "junk")),
}
DEPTHS = (1, 5, 10)


def average_precision(ranks: np.ndarray, relevant: np.ndarray) -> np.ndarray:
    """Area under the precision-recall curve by trapezoids; see `retrieval.metrics`.

    The j-th of R relevant rows (from 0) at rank r adds (j / r + (j + 1) / (r + 1)) / 2R, where
    0 / 0 is 1. `ranks` [Q, R], `relevant` [Q] -> [Q], NaN without relevant rows.
    """
    nth = np.arange(ranks.shape[1])
    there = nth < relevant[:, None]
    before = np.where(ranks == 0, 1.0, nth / np.maximum(ranks, 1))
    heights = np.where(there, before + (nth + 1) / (ranks + 1), 0.0)
    found = heights.sum(axis=1) / (2.0 * np.maximum(relevant, 1))
    return np.where(relevant > 0, found, np.nan)


def precision_at_k(ranks: np.ndarray, relevant: np.ndarray, *, k: int) -> np.ndarray:
    """Relevant part of the k best rows, or of those down to the last relevant one if it is higher.

    `ranks` [Q, R], `relevant` [Q] -> [Q], NaN without relevant rows.
    """
    there = np.arange(ranks.shape[1]) < relevant[:, None]
    last = np.where(there, ranks + 1, 0).max(axis=1, initial=0)
    looked_at = np.clip(last, 1, k)
    hits = (there & (ranks < looked_at[:, None])).sum(axis=1)
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
    """Rank gallery and distractors for every query; mAP and mP@k of the three setups.

    Rows are joined with the ground truth by the names of their files, without folder and suffix:
    queries and gallery hold exactly its images. Distractors are always wrong. Raises InputError
    where names or vectors do not fit.
    """
    check_comparable(queries, gallery, any_model=any_model)
    number = np.argsort(_joined(queries.names, truth.queries, "queries"))
    rows = _joined(gallery.names, truth.gallery, "gallery")
    answers = [
        {kind: rows[truth.answers[query][kind]] for kind in KINDS} for query in number.tolist()
    ]
    ranked = gallery if distractors is None else _with(gallery, distractors, any_model)
    left, right = as_vector_sets(queries, ranked)
    relevance = Relevance(
        *_groups(answers, len(ranked)), np.full(len(queries), -1), right.tie_order()
    )
    resources = resources or knn.Resources()
    if resources.precision == "auto":  # queries are few, so products are cheap and doubts are not
        resources = replace(resources, precision="float64")
    found = knn.rank_relevant(left, right, relevance, resources=resources)
    per_query, tied = _score(found, answers, np.argsort(relevance.tie_order))
    counts = _counts(per_query, len(gallery), len(ranked) - len(gallery))
    relevant = np.array([len(answer["easy"]) + len(answer["hard"]) for answer in answers])
    means = {name: _mean(values) for name, values in per_query.items()}
    return Report(means, counts | {"ties": tied}, queries, per_query, relevant)


def _joined(names: np.ndarray, wanted: np.ndarray, side: str) -> np.ndarray:
    """The row of each wanted stem ['S', M] in `names` ['S', M]. Raises InputError."""
    stems = StringArray.from_texts(map(stem, names.tolist())).to_array()
    rows = find(stems, wanted)
    if (rows < 0).any():
        lacking = wanted[rows < 0]
        raise InputError(
            f"the {side} lack{'s' * (side == 'gallery')} {len(lacking):,} of {len(wanted):,} "
            f"images of the ground truth ({examples(lacking)}); embed all of them"
        )
    surplus = names[find(wanted, stems) < 0]
    if len(surplus):
        remedy = {"queries": "embed the queries alone", "gallery": "give others as --distractors"}
        raise InputError(
            f"the ground truth does not name {len(surplus):,} of the {side} "
            f"({examples(surplus)}); {remedy[side]}"
        )
    check_unique(stems, f"the {side}, without folders and suffixes")
    return rows


def _with(gallery: Embeddings, distractors: Embeddings, any_model: bool) -> Embeddings:
    parts = [
        replace(part, labels=np.full(len(part), -1), label_names=(), columns={})
        for part in (gallery, distractors)
    ]
    if any_model:
        parts[1] = replace(parts[1], space=parts[0].space)
    return shards.join(("the gallery", "the distractors"), parts)


def _groups(answers: Sequence[Answer], size: int) -> tuple[np.ndarray, np.ndarray]:
    """Codes of queries [Q] and of gallery rows [size], equal where the ground truth joins them.

    Queries of one landmark have much the same rows, so that ranking the rows of all of them for
    each takes hardly more than ranking its own, and no list of pairs.
    """
    from scipy.sparse import coo_array  # takes as long as all other imports together
    from scipy.sparse.csgraph import connected_components

    known = [np.concatenate([answer[kind] for kind in KINDS]) for answer in answers]
    owner = np.repeat(np.arange(len(known)), [len(rows) for rows in known])
    used, column = np.unique(np.concatenate(known), return_inverse=True)
    nodes = len(known) + len(used)
    edges = coo_array((np.ones(len(owner)), (owner, len(known) + column)), shape=(nodes, nodes))
    _, codes = connected_components(edges, directed=False)
    of_gallery = np.full(size, -1, np.int32)
    of_gallery[used] = codes[len(known) :]
    return codes[: len(known)].astype(np.int32), of_gallery


def _score(
    found: Iterable[knn.Ranks], answers: Sequence[Answer], row_at: np.ndarray
) -> tuple[dict[str, np.ndarray], int]:
    """Values [Q] of every measure, and how many queries have ties.

    `row_at` [N] is the gallery row at each place in the order of ties.
    """
    measures = ("map", *(f"mp@{k}" for k in DEPTHS))
    names = [f"{measure}_{setup}" for measure in measures for setup in SETUPS]
    per_query = {name: np.full(len(answers), np.nan) for name in names}
    tied = 0
    for part in found:
        for number, (start, stop) in enumerate(itertools.pairwise(part.starts.tolist())):
            query, inside = part.first + number, slice(start, stop)
            kinds = _kinds(answers[query], row_at[part.tie_order[inside]])
            for name, value in _values(kinds, part.ranks[inside]).items():
                per_query[name][query] = value
            tied += _is_tied(kinds, part.scores[inside], part.tied[inside])
    return per_query, tied


def _kinds(answer: Answer, rows: np.ndarray) -> np.ndarray:
    """The kind of each gallery row ['U', n], empty where the answer does not name it."""
    kinds = np.full(len(rows), "", "U4")
    for kind in KINDS:
        kinds[np.isin(rows, answer[kind])] = kind
    return kinds


def _values(kinds: np.ndarray, ranks: np.ndarray) -> dict[str, float]:
    """Every measure of one query from kinds and ranks [n] of its rows, best first."""
    values = {}
    for setup, (right, out) in SETUPS.items():
        chosen, ignored = np.isin(kinds, right), np.isin(kinds, out)
        found = (ranks - np.cumsum(ignored))[chosen][None, :]
        number = np.array([found.shape[1]])
        values[f"map_{setup}"] = average_precision(found, number).item()
        for k in DEPTHS:
            values[f"mp@{k}_{setup}"] = precision_at_k(found, number, k=k).item()
    return values


def _is_tied(kinds: np.ndarray, scores: np.ndarray, outside: np.ndarray) -> bool:
    """Whether a right row scores like a row of another kind, or one `outside` these."""
    right = np.isin(kinds, SETUPS["medium"][0])
    equal = (scores[1:] == scores[:-1]) & (kinds[1:] != kinds[:-1])
    return bool((outside & right).any() or (equal & (right[1:] | right[:-1])).any())


def _mean(values: np.ndarray) -> float:
    defined = values[~np.isnan(values)]
    return float(defined.mean()) if len(defined) else float("nan")


def _counts(per_query: Mapping[str, np.ndarray], gallery: int, distractors: int) -> dict[str, int]:
    counts = {"queries": len(per_query["map_easy"])}
    for setup in SETUPS:
        without = int(np.isnan(per_query[f"map_{setup}"]).sum())
        if without == counts["queries"]:
            logger.warning("no query has anything to find in the setup %s", setup)
        counts[f"without_positives_{setup}"] = without
    return counts | {"gallery": gallery, "distractors": distractors}
