"""The work of `mltool dedup`: images or vectors in, pairs of near duplicates out."""

import logging
from dataclasses import dataclass

import numpy as np

from mltool.commands.selected_data import open_selected
from mltool.errors import InputError, SkippedInputs, UsageError
from mltool.exact.knn import Resources
from mltool.files import atomic, history, shards
from mltool.files.lists import vector_lists
from mltool.files.manifest import Manifest
from mltool.files.names import find
from mltool.options import rules
from mltool.options.duplicates import DedupOptions
from mltool.options.group import list_recorded
from mltool.options.lists import ListOptions
from mltool.options.run import parse_size
from mltool.retrieval import fingerprints, tables
from mltool.retrieval.duplicates import (
    Duplicates,
    find_image_duplicates,
    find_vector_duplicates,
)
from mltool.retrieval.overlap import NEAR

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class _Compared:
    """Pairs of rows of a list, the score from which on they count, and what was unreadable."""

    manifest: Manifest
    pairs: Duplicates
    min_score: float
    skipped: tuple[str, ...] = ()


def run(
    data: list[str],
    output: str,
    *,
    options: DedupOptions = DedupOptions(),
    lists: ListOptions = ListOptions(),
) -> None:
    """Write the near duplicates among the lists or embeddings `data` to the CSV `output`.

    Raises SkippedInputs at the end when images were left out, UsageError, InputError and
    ResourceError.
    """
    rules.check_dedup(options)
    atomic.check_writable(output)
    of_vectors = vector_lists.are_vectors(data)
    atomic.refuse_inputs(output, vector_lists.list_files(data) if of_vectors else data)
    manifest = open_selected(data, lists, of_vectors=of_vectors)
    with atomic.claim(output):
        compared = (_compare_vectors if of_vectors else _compare_images)(data, manifest, options)
        _write(output, compared)
        history.write_sidecar(output, _history(data, compared, options, lists, of_vectors))
    logger.info("wrote %s: %s", output, _summarize(compared))
    if compared.skipped and options.on_bad_image == "skip":
        raise SkippedInputs(f"{len(compared.skipped)} images could not be read and were left out")


def _summarize(compared: _Compared) -> str:
    pairs = compared.pairs
    groups = len(np.unique(pairs.groups))
    facts = [f"{len(pairs):,} pair{'' if len(pairs) == 1 else 's'}"]
    facts += [] if pairs.same is None else [f"{int(pairs.same.sum()):,} of them of equal pixels"]
    facts.append(f"in {groups:,} group{'' if groups == 1 else 's'}")
    return f"{', '.join(facts)}; surplus: {pairs.count_surplus():,} of {len(compared.manifest):,}"


def _compare_vectors(data: list[str], manifest: Manifest, options: DedupOptions) -> _Compared:
    stored = shards.open_many(vector_lists.list_files(data))
    if options.min_score is None and stored.metric != "cosine":
        raise UsageError(
            f"the vectors are compared by {stored.metric}; say with --min-score how close "
            "duplicates are"
        )
    min_score = NEAR if options.min_score is None else options.min_score
    rows = stored.take(find(stored.names, manifest.names))
    with shards.name_broken_file(vector_lists.list_files(data)):
        pairs = find_vector_duplicates(rows, min_score=min_score, resources=_resources(options))
    return _Compared(manifest, pairs, min_score)


def _compare_images(data: list[str], manifest: Manifest, options: DedupOptions) -> _Compared:
    resources = _resources(options)
    fingerprints.check_memory(len(manifest), resources.max_memory)
    prints = fingerprints.join(
        fingerprints.read_fingerprints(manifest, label="read", threads=options.threads)
    )
    if prints.reasons and options.on_bad_image == "error":
        raise InputError(prints.reasons[0])
    for reason in prints.reasons:
        logger.warning("left out: %s", reason)
    readable = prints.digests != b""
    if not readable.any():
        raise InputError(f"none of the {len(manifest):,} images of {' '.join(data)} can be read")
    min_score = NEAR if options.min_score is None else options.min_score
    rows = fingerprints.Fingerprints(prints.digests[readable], prints.thumbnails[readable], ())
    pairs = find_image_duplicates(rows, min_score=min_score, resources=resources)
    return _Compared(manifest.take(readable), pairs, min_score, prints.reasons)


def _resources(options: DedupOptions) -> Resources:
    return Resources(max_memory=parse_size(options.max_memory), threads=options.threads)


def _write(output: str, compared: _Compared) -> None:
    """Write a row for each pair: group, names of both, score, and of images whether the same."""
    pairs, names = compared.pairs, compared.manifest.names
    columns = {
        "group": pairs.groups.tolist(),
        "first": [name.decode() for name in names[pairs.first].tolist()],
        "second": [name.decode() for name in names[pairs.second].tolist()],
        "score": [f"{score:.6f}" for score in pairs.scores.tolist()],
    }
    if pairs.same is not None:
        columns["same"] = pairs.same.astype(np.int64).tolist()
    tables.write_rows(output, list(columns), zip(*columns.values(), strict=True))


def _history(
    data: list[str],
    compared: _Compared,
    options: DedupOptions,
    lists: ListOptions,
    of_vectors: bool,
) -> history.History:
    if of_vectors:
        inputs = vector_lists.list_inputs("data", data)
        before = vector_lists.read_histories(data)
    else:
        inputs = history.list_inputs("data", data, compared.manifest.digest())
        before = history.read_all(data)
    pairs = compared.pairs
    step = history.record(
        "dedup",
        inputs=inputs,
        settings=list_recorded(options, lists) | {"min_score": compared.min_score},
        counts={
            "images": len(compared.manifest),
            "pairs": len(pairs),
            "groups": len(np.unique(pairs.groups)),
        },
    )
    return history.extend(*before, record=step)
