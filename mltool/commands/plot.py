"""The work of `mltool plot`: files of vectors in, a PNG out."""

from mltool.files import atomic, shards
from mltool.files.lists import image_lists, selection
from mltool.options.retrieval import PlotOptions
from mltool.retrieval import pictures


def run(
    kind: str,
    embeddings: str,
    gallery: str | None = None,
    *,
    output: str,
    options: PlotOptions = PlotOptions(),
) -> None:
    """Draw a `ranking` or a map by `tsne` to `output`.

    Raises UsageError, InputError, ResourceError.
    """
    atomic.check_writable(output)
    paths = shards.expand(embeddings)
    atomic.refuse_inputs(output, paths)
    queries = shards.read_many(paths)
    if kind == "tsne":
        picture = pictures.draw_tsne(queries, limit=options.limit, seed=options.seed)
    else:
        others = shards.expand(gallery) if gallery is not None else []
        images = selection.join([image_lists.read_h5(path) for path in (*paths, *others)])
        picture = pictures.draw_ranking(
            queries,
            shards.read_many(others) if others else None,
            images,
            query_names=options.query or [],
            worst=options.worst,
            k=options.k,
        )
    atomic.write(output, picture)
