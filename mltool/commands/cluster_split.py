"""The work of `mltool cluster-split`: vectors of training images in, a cluster a learner out."""

import logging
from dataclasses import dataclass, replace

import numpy as np

from mltool import components
from mltool.clusterers import describe_library
from mltool.components import Choice
from mltool.errors import InputError, escape
from mltool.exact.knn import Resources
from mltool.files import atomic, canonical_json, history, shards
from mltool.files.embeddings import Embeddings
from mltool.files.lists import csv_list, image_lists, selection, vector_lists
from mltool.files.manifest import CLUSTER, Manifest
from mltool.files.names import find
from mltool.options import rules
from mltool.options.group import list_recorded
from mltool.options.run import parse_size
from mltool.options.splitting import SplitOptions, add_count, parse_method
from mltool.retrieval import tables
from mltool.retrieval.learner_clusters import Divider, Split, cluster_rows, deal_classes, divide

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Report:
    """Counts of all that was read and done, and of what each cluster holds."""

    counts: dict[str, int]
    clusters: list[dict[str, int]]


def run(texts: list[str], output: str, *, options: SplitOptions = SplitOptions()) -> None:
    """Divide the images whose embeddings `texts` name, write the list, print a report.

    Raises UsageError, InputError, ResourceError.
    """
    rules.check_cluster_split(output, options)
    atomic.check_writable(output)
    paths = vector_lists.expand(texts)
    atomic.refuse_inputs(output, [*paths, *([options.previous] if options.previous else [])])
    stored = shards.open_many(paths)
    images = _name_labels(selection.join([image_lists.read_h5(path) for path in paths]))
    with shards.name_broken_file(texts):
        split = _divide(stored, options)
    report = _describe(split, images.labels)
    columns = {CLUSTER: split.clusters}
    steps = _history(texts, stored, options, report)
    with atomic.claim(output):
        csv_list.write_csv(output, images, columns=columns, history=steps)
    _print(report, json=options.json)
    logger.info(
        "wrote %s: %s of %s images in %d clusters",
        *(output, f"{report.counts['divided']:,}", f"{len(images):,}", report.counts["clusters"]),
    )


def _name_labels(images: Manifest) -> Manifest:
    """Return images whose labels have texts, as a list on disk must have."""
    if images.label_names:
        return images
    classes, numbers = np.unique(images.labels[images.labels >= 0], return_inverse=True)
    labels = np.full(len(images), -1)
    labels[images.labels >= 0] = numbers
    return replace(images, labels=labels, label_names=tuple(map(str, classes.tolist())))


def _divide(stored: Embeddings, options: SplitOptions) -> Split:
    return divide(
        stored.vectors,
        stored.labels,
        count=options.clusters,
        divider=_make_divider(stored, options),
        metric=stored.metric,
        min_classes=options.min_classes,
        previous=None if options.previous is None else _read_previous(options.previous, stored),
        double=options.double,
    )


def _make_divider(stored: Embeddings, options: SplitOptions) -> Divider:
    if options.random:
        return lambda rows, count: deal_classes(stored.labels[rows], count, options.seed)
    method = parse_method(options.method)
    resources = Resources(max_memory=parse_size(options.max_memory), threads=options.threads)

    def cluster(rows: np.ndarray, count: int) -> np.ndarray:
        clusterer = components.load(
            "clusterers",
            add_count(method, count),
            seed=options.seed,
            metric=stored.metric,
            resources=resources,
        )
        return cluster_rows(stored.vectors, rows, clusterer)

    return cluster


def _read_previous(path: str, stored: Embeddings) -> np.ndarray:
    """Read the clusters before [N] of the images by name, -1 where one had none."""
    listed = csv_list.read_csv(path)
    if CLUSTER not in listed.columns:
        raise InputError(
            f"{escape(path)} has no column `{CLUSTER}`; name a list of `mltool cluster-split`"
        )
    rows = find(listed.names, stored.names)
    before = np.where(rows >= 0, listed.columns[CLUSTER][rows], -1)
    if not (before >= 0).any():
        raise InputError(
            f"no image of the embeddings has a cluster in {escape(path)}; name the split of the "
            "same images, or leave out --previous"
        )
    return before


def _describe(split: Split, labels: np.ndarray) -> _Report:
    rows = []
    for cluster in range(split.count):
        classes, sizes = np.unique(labels[split.clusters == cluster], return_counts=True)
        rows.append({"cluster": cluster, "images": int(sizes.sum()), "classes": len(classes)})
    counts = {
        "images": len(labels),
        "classes": len(np.unique(labels[labels >= 0])),
        "unlabelled": int((labels < 0).sum()),
        "learners": split.count,
        "clusters": sum(row["images"] > 0 for row in rows),  # a learner may be without images
        "divided": sum(row["images"] for row in rows),
        **split.counts,
    }
    return _Report(counts, rows)


def _history(
    texts: list[str], stored: Embeddings, options: SplitOptions, report: _Report
) -> history.History:
    settings = list_recorded(options)
    libraries: dict[str, str] = {}
    if options.random:
        del settings["method"]
    else:
        method: Choice = parse_method(options.method)
        settings["method"] = method.text
        threads, libraries = describe_library(method, options.threads)
        settings |= threads
    inputs = vector_lists.list_inputs("embeddings", texts)
    before = [stored.history]
    if options.previous is not None:
        inputs.append(("--previous", options.previous, history.digest_of_file(options.previous)))
        before.append(history.read(options.previous))
    step = history.record(
        "cluster-split",
        inputs=inputs,
        settings=settings,
        counts=report.counts,
        libraries=libraries,
    )
    return history.extend(*before, record=step)


def _print(report: _Report, *, json: bool) -> None:
    if json:
        print(canonical_json.to_json({**report.counts, "by_cluster": report.clusters}))
        return
    lines = [*tables.list_counts(report.counts), "", f"{'cluster':>7}{'images':>12}{'classes':>10}"]
    lines += [
        f"{row['cluster']:>7}{row['images']:>12,}{row['classes']:>10,}" for row in report.clusters
    ]
    print("\n".join(lines))
