"""`mltool evaluate` as a library call: files in, a report and files out."""

from dataclasses import dataclass

from mltool.errors import InputError, UsageError
from mltool.exact.knn import Resources
from mltool.files import atomic, canonical_json, hits, landmarks, shards
from mltool.files.embeddings import Embeddings
from mltool.files.history import History, digest_of_file, extend, record, write_sidecar
from mltool.options import parse_size
from mltool.retrieval import revisited, tables
from mltool.retrieval.neighbours import search
from mltool.retrieval.query_gallery import split_roles
from mltool.retrieval.scoring import DEFAULT_METRICS, Report, evaluate

RUN_DEPTH = 100  # hits of each query in a TREC run


@dataclass(frozen=True)
class EvaluateRequest:
    """The options of `mltool evaluate`, by their names there; see its help."""

    queries: str
    gallery: str | None
    protocol: str | None
    ground_truth: str | None
    distractors: list[str]
    metrics: str
    keep_self: bool
    any_model: bool
    bootstrap: int
    seed: int
    per_query: str | None
    per_class: str | None
    run: str | None
    output: str | None
    json: bool
    max_memory: str
    device: str
    threads: int | None


def run(request: EvaluateRequest) -> str:
    """Evaluate as requested, write the files asked for, and return what is to be printed.

    Raises UsageError, InputError, ResourceError.
    """
    if request.bootstrap < 0:
        raise UsageError(f"--bootstrap {request.bootstrap}: give 0 or more resamplings")
    _check_protocol(request)
    resources = Resources(
        max_memory=parse_size(request.max_memory), device=request.device, threads=request.threads
    )
    query_paths = shards.expand(request.queries)
    gallery_paths = shards.expand(request.gallery) if request.gallery else []
    inputs = [*query_paths, *gallery_paths, *_distractors(request), request.ground_truth]
    for path in (request.per_query, request.per_class, request.run, request.output):
        if path is not None:
            atomic.check_writable(path)
            atomic.refuse_inputs(path, inputs)
    queries = shards.open_many(query_paths)
    gallery = shards.open_many(gallery_paths) if gallery_paths else None
    with shards.name_broken_file([request.queries, request.gallery, *request.distractors]):
        report = _evaluate(request, queries, gallery, resources)
    text = canonical_json.to_json(tables.as_record(report))
    _write(request, report, text, queries, gallery)
    if request.run:
        asking, asked = (queries, gallery) if gallery is not None else split_roles(queries)
        found = search(
            asking,
            asked,
            k=RUN_DEPTH,
            keep_self=request.keep_self,
            any_model=True,
            resources=resources,
        )
        hits.write(request.run, found, _history(request, report, queries, gallery))
    if request.json:
        return text
    return tables.as_table(report) if request.protocol else tables.as_text(report)


def _check_protocol(request: EvaluateRequest) -> None:
    """Refuse options that belong to the other kind of evaluation. Raises UsageError."""
    if request.protocol is None:
        alone = {"ground-truth": request.ground_truth, "distractors": request.distractors}
        for name, value in alone.items():
            if value:
                raise UsageError(f"--{name} belongs to --protocol revisited; say that too")
        return
    if request.ground_truth is None:
        raise UsageError("--protocol revisited needs --ground-truth, such as gnd_roxford5k.pkl")
    changed = {
        "metrics": request.metrics != ",".join(DEFAULT_METRICS),
        "keep-self": request.keep_self,
        "bootstrap": request.bootstrap,
        "per-class": request.per_class,
        "run": request.run,
    }
    for name in (name for name, value in changed.items() if value):
        raise UsageError(f"--protocol revisited fixes what is measured; leave --{name} out")


def _distractors(request: EvaluateRequest) -> list[str]:
    return [path for text in request.distractors for path in shards.expand(text)]


def _evaluate(
    request: EvaluateRequest, queries: Embeddings, gallery: Embeddings | None, resources: Resources
) -> Report:
    if request.ground_truth is None:
        return evaluate(
            queries,
            gallery,
            metrics=[name.strip() for name in request.metrics.split(",")],
            keep_self=request.keep_self,
            any_model=request.any_model,
            bootstrap=request.bootstrap,
            seed=request.seed,
            resources=resources,
        )
    if gallery is None:
        queries, gallery = split_roles(queries)
    if gallery is None:
        raise InputError(
            f"{request.queries} does not say which rows are queries (columns is_query and "
            "is_gallery); give the gallery too"
        )
    paths = _distractors(request)
    return revisited.evaluate(
        queries,
        gallery,
        landmarks.read(request.ground_truth),
        distractors=shards.open_many(paths) if paths else None,
        any_model=request.any_model,
        resources=resources,
    )


def _write(
    request: EvaluateRequest,
    report: Report,
    text: str,
    queries: Embeddings,
    gallery: Embeddings | None,
) -> None:
    if request.per_query:
        tables.write_per_query(request.per_query, report)
    if request.per_class:
        tables.write_per_class(request.per_class, report)
    if request.output:
        atomic.write(request.output, f"{text}\n".encode())
    history = _history(request, report, queries, gallery)
    for path in filter(None, (request.per_query, request.per_class, request.output)):
        write_sidecar(path, history)


def _history(
    request: EvaluateRequest, report: Report, queries: Embeddings, gallery: Embeddings | None
) -> History:
    inputs = [("queries", request.queries, queries.digest)]
    inputs += [("gallery", request.gallery or "", gallery.digest)] if gallery is not None else []
    settings: dict[str, object] = {
        key: getattr(request, key)
        for key in ("metrics", "keep_self", "any_model", "bootstrap", "seed")
    }
    if request.ground_truth is not None:
        settings = {"protocol": request.protocol, "any_model": request.any_model}
        further = [("--ground-truth", request.ground_truth)]
        further += [("--distractors", path) for path in _distractors(request)]
        inputs += [(option, path, digest_of_file(path)) for option, path in further]
    step = record("evaluate", inputs=inputs, settings=settings, counts=report.counts)
    return extend(queries.history, gallery.history if gallery is not None else (), record=step)
