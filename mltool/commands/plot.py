"""The work of `mltool plot`: files of vectors in, a PNG out."""

import itertools
import os
from collections.abc import Sequence

from mltool.exact.knn import Resources
from mltool.files import atomic, canonical_json, shards
from mltool.files.embeddings import Embeddings
from mltool.files.lists import image_lists, selection
from mltool.options import rules
from mltool.options.retrieval import PlotOptions
from mltool.retrieval import pictures, tables
from mltool.retrieval.conquer import take_part
from mltool.retrieval.pictures import Ranking
from mltool.retrieval.ranking_overlap import (
    OVERLAP,
    Overlap,
    average_overlap,
    find_queries,
    list_nearest,
)

Panel = tuple[str, Embeddings, Embeddings | None]  # title, queries, gallery


def run(kind: str, texts: list[str], output: str, *, options: PlotOptions = PlotOptions()) -> None:
    """Draw a `ranking` or a map by `tsne` of each of `texts`, side by side, to `output`.

    Of several rankings their overlaps are printed. Raises UsageError, InputError, ResourceError.
    """
    rules.check_plot(kind, texts, options)
    atomic.check_writable(output)
    galleries = options.gallery or []
    paths = dict.fromkeys(path for text in (*texts, *galleries) for path in shards.expand(text))
    atomic.refuse_inputs(output, list(paths))
    panels = _open_panels(texts, options)
    overlaps: list[Overlap] = []
    if kind == "tsne":
        picture = pictures.draw_tsne(
            [(title, queries) for title, queries, _ in panels],
            limit=options.limit,
            seed=options.seed,
        )
    else:
        rankings = [
            Ranking.from_roles(title, queries)
            if gallery is None
            else Ranking(title, queries, gallery)
            for title, queries, gallery in panels
        ]
        overlaps = _compare(rankings)
        picture = pictures.draw_rankings(
            rankings,
            selection.join([image_lists.read_h5(path) for path in paths]),
            query_names=options.query or [],
            worst=options.worst,
            k=options.k,
        )
    atomic.write(output, picture)
    _print(overlaps, json=options.json)


def _open_panels(texts: Sequence[str], options: PlotOptions) -> list[Panel]:
    """Open what each panel shows: every part that is asked for of every model."""
    names = [os.path.basename(os.path.normpath(text)) for text in texts]
    titles = names if len(set(names)) == len(names) else texts
    galleries: Sequence[str | None] = options.gallery or [None] * len(texts)
    panels: list[Panel] = []
    for title, text, gallery in zip(titles, texts, galleries, strict=True):
        queries = _open_parts(text, options)
        asked: Sequence[Embeddings | None] = [None] * len(queries)
        if gallery is not None:
            asked = _open_parts(gallery, options)
        suffixes = [f" part {text}" for text in options.part or ()] or [""]
        panels += [
            (title + suffix, one, other)
            for suffix, one, other in zip(suffixes, queries, asked, strict=True)
        ]
    return panels


def _open_parts(text: str, options: PlotOptions) -> list[Embeddings]:
    """Read the embeddings that a text names, once for each part that is asked for."""
    whole = shards.read_many(shards.expand(text))
    wanted: Sequence[str | None] = options.part or [None]
    return [take_part(whole, part, source=text, resources=Resources()) for part in wanted]


def _compare(rankings: Sequence[Ranking]) -> list[Overlap]:
    """Measure for every two rankings what their nearest rows of all queries share."""
    if len(rankings) == 1:
        return []
    names = rankings[0].queries.names
    hits = []
    for ranking in rankings:
        rows = find_queries(names, ranking.queries, ranking.title)
        hits.append(list_nearest(ranking.queries, ranking.gallery, rows, Resources()))
    return [
        Overlap(rankings[one].title, rankings[other].title, average_overlap(hits[one], hits[other]))
        for one, other in itertools.combinations(range(len(rankings)), 2)
    ]


def _print(overlaps: Sequence[Overlap], *, json: bool) -> None:
    if json:
        print(canonical_json.to_json({"overlaps": [overlap.as_record() for overlap in overlaps]}))
        return
    for overlap in overlaps:
        share = tables.format_percent(overlap.share)
        print(f"{overlap.first}, {overlap.second}: {OVERLAP} {share}")
