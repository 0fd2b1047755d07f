"""The work of `mltool evaluate`: files of vectors in, a report and files out."""

from mltool.errors import InputError
from mltool.exact.knn import Resources
from mltool.files import atomic, canonical_json, hits, landmarks, shards
from mltool.files.embeddings import Embeddings
from mltool.files.history import History, digest_of_file, extend, record, write_sidecar
from mltool.options.group import list_recorded
from mltool.options.retrieval import EvaluateOptions, ResourceOptions
from mltool.options.run import parse_size
from mltool.retrieval import revisited, tables
from mltool.retrieval.conquer import take_part
from mltool.retrieval.neighbours import search
from mltool.retrieval.query_gallery import split_roles
from mltool.retrieval.scoring import Report, evaluate

RUN_DEPTH = 100  # hits of each query in a TREC run


def run(
    queries: str,
    gallery: str | None = None,
    *,
    options: EvaluateOptions = EvaluateOptions(),
    resources: ResourceOptions = ResourceOptions(),
) -> None:
    """Rank `gallery` for each of `queries`, write the files of the options, print the report.

    Both are texts that name embeddings: a file, a folder of shards or a glob. Raises UsageError,
    InputError, ResourceError.
    """
    limits = Resources(
        max_memory=parse_size(resources.max_memory),
        device=resources.device,
        threads=resources.threads,
    )
    query_paths = shards.expand(queries)
    gallery_paths = shards.expand(gallery) if gallery else []
    inputs = [*query_paths, *gallery_paths, *_distractors(options), options.ground_truth]
    for path in (options.per_query, options.per_class, options.run, options.output):
        if path is not None:
            atomic.check_writable(path)
            atomic.refuse_inputs(path, inputs)
    asking = _open(queries, query_paths, options, limits)
    asked = _open(gallery, gallery_paths, options, limits) if gallery else None
    with shards.name_broken_file([queries, gallery, *(options.distractors or ())]):
        report = _evaluate(options, queries, asking, asked, limits)
    text = canonical_json.to_json(tables.as_record(report))
    names = [("queries", queries, asking.digest)]
    names += [("gallery", gallery or "", asked.digest)] if asked is not None else []
    before = [asking.history, asked.history if asked is not None else ()]
    history = extend(*before, record=_record(options, report, names))
    _write(options, report, text, history)
    if options.run:
        _write_run(options, options.run, asking, asked, limits, history)
    if options.json:
        print(text)
    else:
        print(tables.as_table(report) if options.protocol else tables.as_text(report))


def _open(
    text: str, paths: list[str], options: EvaluateOptions, resources: Resources
) -> Embeddings:
    """Open the files of one argument as one, or the part of their vectors that is asked for."""
    whole = shards.open_many(paths)
    return take_part(whole, options.part, source=text, resources=resources)


def _distractors(options: EvaluateOptions) -> list[str]:
    return [path for text in options.distractors or () for path in shards.expand(text)]


def _evaluate(
    options: EvaluateOptions,
    name: str,
    queries: Embeddings,
    gallery: Embeddings | None,
    resources: Resources,
) -> Report:
    """Score the ranking; `name` is what the user calls the queries."""
    if options.ground_truth is None:
        return evaluate(
            queries,
            gallery,
            metrics=[metric.strip() for metric in options.metrics.split(",")],
            keep_self=options.keep_self,
            any_model=options.any_model,
            bootstrap=options.bootstrap,
            seed=options.seed,
            resources=resources,
        )
    if gallery is None:
        queries, gallery = split_roles(queries)
    if gallery is None:
        raise InputError(
            f"{name} does not say which rows are queries (columns is_query and is_gallery); give "
            "the gallery too"
        )
    paths = _distractors(options)
    further = _open(", ".join(paths), paths, options, resources) if paths else None
    return revisited.evaluate(
        queries,
        gallery,
        landmarks.read(options.ground_truth),
        distractors=further,
        any_model=options.any_model,
        resources=resources,
    )


def _write(options: EvaluateOptions, report: Report, text: str, history: History) -> None:
    """Write the report and its tables, each with its history beside it."""
    if options.per_query:
        tables.write_per_query(options.per_query, report)
    if options.per_class:
        tables.write_per_class(options.per_class, report)
    if options.output:
        atomic.write(options.output, f"{text}\n".encode())
    for path in filter(None, (options.per_query, options.per_class, options.output)):
        write_sidecar(path, history)


def _write_run(
    options: EvaluateOptions,
    path: str,
    queries: Embeddings,
    gallery: Embeddings | None,
    resources: Resources,
    history: History,
) -> None:
    """Write the best hits of every query as a TREC run."""
    if gallery is None:
        queries, gallery = split_roles(queries)
    hits.write(
        path,
        search(
            queries,
            gallery,
            k=RUN_DEPTH,
            keep_self=options.keep_self,
            any_model=True,  # the report has compared the models
            resources=resources,
        ),
        history,
    )


def _record(
    options: EvaluateOptions, report: Report, inputs: list[tuple[str, str, str]]
) -> dict[str, object]:
    settings = list_recorded(options)
    if options.ground_truth is not None:
        settings = {"protocol": options.protocol, "any_model": options.any_model}
        settings |= {} if options.part is None else {"part": options.part}
        further = [("--ground-truth", options.ground_truth)]
        further += [("--distractors", path) for path in _distractors(options)]
        inputs = inputs + [(option, path, digest_of_file(path)) for option, path in further]
    return record("evaluate", inputs=inputs, settings=settings, counts=report.counts)
