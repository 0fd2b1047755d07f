"""`mltool plot` as a library call: files in, a PNG out."""

from dataclasses import dataclass

from mltool.errors import UsageError
from mltool.files import atomic, shards
from mltool.files.lists import image_lists, selection
from mltool.retrieval import pictures


@dataclass(frozen=True)
class PlotRequest:
    """The options of `mltool plot`, by their names there; see its help."""

    kind: str
    embeddings: str
    gallery: str | None
    output: str
    query: list[str]
    worst: int
    k: int
    limit: int
    seed: int


def run(request: PlotRequest) -> None:
    """Draw what was asked for. Raises UsageError, InputError, ResourceError."""
    for name in ("worst", "k", "limit"):
        if getattr(request, name) < 1:
            raise UsageError(f"{name} is {getattr(request, name)}, but must be 1 or more")
    atomic.check_writable(request.output)
    paths = shards.expand(request.embeddings)
    atomic.refuse_inputs(request.output, paths)
    queries = shards.read_many(paths)
    if request.kind == "tsne":
        picture = pictures.draw_tsne(queries, limit=request.limit, seed=request.seed)
    else:
        others = shards.expand(request.gallery) if request.gallery is not None else []
        images = selection.join([image_lists.read_h5(path) for path in (*paths, *others)])
        picture = pictures.draw_ranking(
            queries,
            shards.read_many(others) if others else None,
            images,
            query_names=request.query,
            worst=request.worst,
            k=request.k,
        )
    atomic.write(request.output, picture)
