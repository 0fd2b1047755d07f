"""The work of `mltool pseudolabel`: vectors without labels in, clusters as labels out."""

import logging
import os
from dataclasses import dataclass, replace

import numpy as np

from mltool import components
from mltool.clusterers import describe_library
from mltool.components import Choice
from mltool.datasets import open_data
from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.files import atomic, canonical_json, embeddings, history, shards
from mltool.files.embeddings import Embeddings
from mltool.files.lists import csv_list, image_lists, selection, vector_lists
from mltool.files.manifest import Manifest
from mltool.options import rules
from mltool.options.clustering import PseudolabelOptions
from mltool.options.group import list_recorded
from mltool.options.run import parse_size
from mltool.retrieval import tables
from mltool.retrieval.overlap import Overlap, find_image_overlap, find_vector_overlap
from mltool.retrieval.pseudo_labels import PseudoLabels, choose_rows, compare_with_truth

logger = logging.getLogger(__name__)

_Inputs = list[tuple[str, str, str]]  # (option, path, digest) of a record

TRUTH = "truth"  # the column of true labels, which no training reads


@dataclass(frozen=True, eq=False)
class _Pool:
    """The embeddings to cluster, those with known labels, and how they are clustered."""

    texts: list[str]
    stored: Embeddings
    reference: Embeddings | None
    method: Choice
    resources: Resources

    def name_class(self, label: int) -> str:
        """Return the text of a label of the reference."""
        assert self.reference is not None
        return self.reference.label_names[label] if self.reference.label_names else str(label)


@dataclass(frozen=True)
class _Report:
    """Counts of all that was read, left out and written, and how good the written labels are."""

    counts: dict[str, float]
    metrics: dict[str, float]  # fractions, over the written images whose class is known


def run(
    texts: list[str], output: str, *, options: PseudolabelOptions = PseudolabelOptions()
) -> None:
    """Cluster the embeddings that `texts` name, write the labels to `output`, print a report.

    Raises UsageError, InputError, ResourceError.
    """
    rules.check_pseudolabel(output, options)
    atomic.check_writable(output)
    inputs = vector_lists.expand([*texts, *([options.reference] if options.reference else [])])
    atomic.refuse_inputs(output, [*inputs, *(options.check_against or ())])
    pool = _open(texts, options)
    overlap: Overlap | None = None
    checked: _Inputs = []
    if options.check_against:
        overlap, checked = _find_overlap(pool, options.check_against)
    pseudo = _cluster(pool, options)
    labels, label_names = pseudo.rename(None if pool.reference is None else pool.name_class)
    truth = _read_truth(pool.stored)
    report = _describe(pseudo, labels, truth, overlap)
    labelled = replace(pool.stored, labels=labels, label_names=label_names)
    columns = {"confidence": np.round(pseudo.confidence, 6)} | (
        {} if truth is None else {TRUTH: truth}
    )
    steps = _history(pool, options, report, checked)
    with atomic.claim(output):
        write = _write_csv if output.lower().endswith(".csv") else _write_vectors
        write(output, pool, replace(labelled, columns=columns), pseudo.kept, steps)
    _print(report, json=options.json)
    counts = report.counts
    logger.info(
        "wrote %s: %s of %s images in %s clusters",
        *(output, f"{counts['images']:,}", f"{len(pool.stored):,}", f"{counts['clusters']:,}"),
    )


def _open(texts: list[str], options: PseudolabelOptions) -> _Pool:
    """Open the embeddings and the reference, which must be of one space. Raises InputError."""
    paths = vector_lists.expand(texts)
    stored = shards.open_many(paths)
    reference = None
    if options.reference is not None:
        reference_paths = shards.expand(options.reference)
        reference = shards.open_many(reference_paths)
        shards.check_match([paths[0], reference_paths[0]], [stored, reference])
        if not stored.space:
            logger.warning("which model made the vectors is not known of both files; not compared")
        if not (reference.labels >= 0).any():
            raise InputError(
                f"{options.reference} holds no labels, which `nearest` needs; embed a list with "
                "labels"
            )
    return _Pool(
        texts,
        stored,
        reference,
        components.parse("clusterers", options.method),
        Resources(max_memory=parse_size(options.max_memory), threads=options.threads),
    )


def _cluster(pool: _Pool, options: PseudolabelOptions) -> PseudoLabels:
    context: dict[str, object] = {
        "seed": options.seed,
        "metric": pool.stored.metric,
        "resources": pool.resources,
    }
    if pool.reference is not None:
        context["reference"] = pool.reference.vectors, pool.reference.labels
    cluster = components.load("clusterers", pool.method, **context)
    with shards.name_broken_file([*pool.texts, options.reference]):
        labels, confidence = cluster(pool.stored.vectors)
    return choose_rows(
        labels,
        np.round(confidence, 6),  # what is written decides
        min_confidence=options.min_confidence,
        min_size=options.min_size,
    )


def _find_overlap(pool: _Pool, texts: list[str]) -> tuple[Overlap, _Inputs]:
    """Compare with the images of lists: by vectors of the same model if they are, else by pixels.

    Returns the overlap, and the lists as inputs of a record. Raises InputError.
    """
    are_vectors = vector_lists.are_vectors(texts)
    if are_vectors:
        inputs = vector_lists.list_inputs("--check-against", texts)
        others = shards.open_many(vector_lists.list_files(texts))
        if others.space == pool.stored.space != "":
            with shards.name_broken_file([*pool.texts, *texts]):
                return find_vector_overlap(pool.stored, others, resources=pool.resources), inputs
    listed = open_data(texts)
    if not are_vectors:
        inputs = history.list_inputs("--check-against", texts, listed.digest())
    return find_image_overlap(_read_images(pool), listed, resources=pool.resources), inputs


def _read_truth(stored: Embeddings) -> np.ndarray | None:
    """Return the true label ['S', N] of each row, empty where unknown; None if no row has one.

    A column `truth`, as pseudo-labels that are embedded again have, wins over the labels.
    """
    if TRUTH in stored.columns:
        return stored.columns[TRUTH].astype("S")
    if not (stored.labels >= 0).any():
        return None
    if not stored.label_names:
        return np.where(stored.labels >= 0, stored.labels.astype("S"), b"")
    return np.char.encode([*stored.label_names, ""])[stored.labels]  # -1 picks the last


def _describe(
    pseudo: PseudoLabels, labels: np.ndarray, truth: np.ndarray | None, overlap: Overlap | None
) -> _Report:
    sizes = pseudo.list_sizes()
    counts: dict[str, float] = {
        "images": int(pseudo.kept.sum()),
        "clusters": len(sizes),
        "smallest": int(sizes[0]),
        "median": float(np.median(sizes)),
        "largest": int(sizes[-1]),
        **pseudo.counts,
        **(overlap.as_counts() if overlap is not None else {}),
    }
    if truth is None:
        return _Report(counts, {})
    counts["with_truth"] = int((pseudo.kept & (truth != b"")).sum())
    return _Report(counts, compare_with_truth(labels, truth))


def _write_csv(
    output: str, pool: _Pool, labelled: Embeddings, kept: np.ndarray, steps: history.History
) -> None:
    """Write an image list, whose paths resolve from its folder."""
    images = _read_images(pool)
    images = replace(
        images,
        labels=labelled.labels,
        label_names=labelled.label_names,
        columns=_drop_old(images.columns) | labelled.columns,
    )
    csv_list.write_csv(output, images.take(kept), history=steps)


def _write_vectors(
    output: str, pool: _Pool, labelled: Embeddings, kept: np.ndarray, steps: history.History
) -> None:
    """Write the vectors of the images that keep a label, with the columns of their list."""
    listed = selection.join([vector_lists.read(path) for path in vector_lists.expand(pool.texts)])
    columns = vector_lists.columns_for(listed, os.path.dirname(os.path.realpath(output)))
    content = replace(
        labelled,
        columns=_drop_old(columns) | labelled.columns,
        root=listed.root,
        history=steps,
    )
    embeddings.write(output, content, keep=kept)


def _read_images(pool: _Pool) -> Manifest:
    """Read the list of the images that were embedded, row by row those of the vectors."""
    paths = vector_lists.expand(pool.texts)
    return selection.join([image_lists.read_h5(path) for path in paths])


def _drop_old(columns: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return columns without those of an earlier clustering."""
    return {key: column for key, column in columns.items() if key not in ("confidence", TRUTH)}


def _history(
    pool: _Pool, options: PseudolabelOptions, report: _Report, checked: _Inputs
) -> history.History:
    threads, libraries = describe_library(pool.method, options.threads)
    settings = list_recorded(options) | {"method": pool.method.text} | threads
    inputs = vector_lists.list_inputs("embeddings", pool.texts)
    if options.reference is not None:
        inputs += vector_lists.list_inputs("--reference", [options.reference])
    inputs += checked
    counts = {name: value for name, value in report.counts.items() if isinstance(value, int)}
    step = history.record(
        "pseudolabel", inputs=inputs, settings=settings, counts=counts, libraries=libraries
    )
    before = [pool.stored.history]
    before += [pool.reference.history] if pool.reference is not None else []
    return history.extend(*before, record=step)


def _print(report: _Report, *, json: bool) -> None:
    if json:
        numbers = {name: tables.as_json_number(value) for name, value in report.metrics.items()}
        print(canonical_json.to_json(report.counts | numbers))
        return
    print("\n".join(tables.list_counts(report.counts)))
    lines = [
        f"{name:<18}{tables.format_percent(value):>10}" for name, value in report.metrics.items()
    ]
    print("\n".join(["", *lines] if lines else []))
