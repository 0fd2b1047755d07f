"""Pictures: rankings with right and wrong marked, the plane of t-SNE, curves.

t-SNE: van der Maaten, Hinton, "Visualizing Data using t-SNE", 2008.
"""

import io
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

from mltool.components import suggest
from mltool.errors import InputError, UsageError, escape
from mltool.files.embeddings import Embeddings
from mltool.files.images import load
from mltool.files.manifest import Manifest
from mltool.files.names import find
from mltool.retrieval.neighbours import nearest
from mltool.retrieval.query_gallery import codes, split_roles
from mltool.retrieval.scoring import evaluate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THUMBNAIL = 160  # pixels of the shorter side that a picture needs
ASKED = "#4575b4"
MARKS = (("✗", "#d73027"), ("✓", "#1a9850"), ("?", "#888888"))  # wrong, right, unknown
LEGEND = 20  # classes that have a colour of their own
FEWEST = 4  # rows that t-SNE can place
SHOWN = 24  # characters of a name


def ranking(
    queries: Embeddings,
    gallery: Embeddings | None,
    images: Manifest,
    *,
    chosen: Sequence[str] = (),
    worst: int = 8,
    k: int = 8,
) -> bytes:
    """PNG of a grid: a row for each query, its image and its `k` nearest, green if of its class.

    `images` says where the images of both lie. The queries are the `chosen` names, or else the
    `worst` by average precision. The query itself is left out by name. Raises UsageError without
    matplotlib, InputError for unknown names and images that cannot be found.
    """
    figure_class = _figure_class()
    if gallery is None:
        queries, gallery = split_roles(queries)
    rows = _rows_of(queries, chosen) if chosen else _worst(queries, gallery, worst)
    asking, asked = queries.take(rows), queries if gallery is None else gallery
    found = nearest(asking, asked, k=k, keep_self=False)
    query_codes, gallery_codes = codes(asking, asked)
    figure = figure_class(figsize=(1.5 * (k + 1), 1.9 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), k + 1, squeeze=False)
    for number, line in enumerate(axes):
        _show(line[0], asking, number, images, "query", ASKED)
        hits = zip(line[1:], found.rows[number], found.scores[number], strict=True)
        for cell, row, score in hits:
            if row < 0:
                cell.axis("off")
                continue
            unknown = min(query_codes[number], gallery_codes[row]) < 0
            same = query_codes[number] == gallery_codes[row]
            mark, colour = MARKS[-1 if unknown else int(same)]
            _show(cell, asked, row, images, f"{mark} {score:.3f}", colour)
    return _png(figure)


def tsne(embeddings: Embeddings, *, limit: int = 5000, seed: int = 0) -> bytes:
    """PNG of the rows (at most `limit` of them, drawn with `seed`) in the plane, by class.

    Raises UsageError without matplotlib, InputError for fewer than four rows.
    """
    figure_class = _figure_class()
    if len(embeddings) < FEWEST:
        raise InputError(f"t-SNE places {FEWEST} vectors or more, but there are {len(embeddings)}")
    from sklearn.manifold import TSNE

    count = min(limit, len(embeddings))
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(embeddings), count, replace=False))
    vectors = np.asarray(embeddings.vectors[rows], np.float64)
    if embeddings.metric == "cosine":
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    perplexity = min(30.0, (count - 1) / 3.0)
    plane = TSNE(init="random", perplexity=perplexity, random_state=seed).fit_transform(vectors)
    figure = figure_class(figsize=(9, 7), layout="constrained")
    axes = figure.subplots()
    _scatter(axes, plane, embeddings, rows)
    shown = f"{count:,} of {len(embeddings):,}" if count < len(embeddings) else f"{count:,}"
    axes.set_title(f"t-SNE of {shown} embeddings, perplexity {perplexity:.3g}")
    axes.set_xticks([])
    axes.set_yticks([])
    return _png(figure)


def lines(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], *, across: str, up: str
) -> bytes:
    """PNG of curves by name over common places `x`; `across` and `up` say what the axes are.

    Raises UsageError without matplotlib.
    """
    figure = _figure_class()(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(curves.items(), cycle(("-o", "--s", ":^")), strict=False):
        axes.plot(x, values, style, markersize=4, label=name)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _png(figure)


def _rows_of(queries: Embeddings, chosen: Sequence[str]) -> np.ndarray:
    rows = find(queries.names, np.array([name.encode() for name in chosen], "S"))
    for name, row in zip(chosen, rows, strict=True):
        if row < 0:
            near = suggest(name, [known.decode() for known in queries.names.tolist()])
            raise InputError(f"no query is called {escape(name)!r}{near}")
    return rows


def _worst(queries: Embeddings, gallery: Embeddings | None, count: int) -> np.ndarray:
    """The rows [count] of the lowest average precision, ties by name."""
    values = evaluate(queries, gallery, metrics=["map"], any_model=True).per_query["map"]
    if np.isnan(values).all():
        raise InputError("no query has a relevant row, so none is worst; choose some by --query")
    order = np.lexsort((queries.names, values))  # NaN comes last
    return order[: min(count, np.count_nonzero(~np.isnan(values)))]


def _show(
    cell: "Axes", embeddings: Embeddings, row: int, images: Manifest, title: str, colour: str
) -> None:
    place = int(find(images.names, embeddings.names[row : row + 1])[0])
    if place < 0:
        raise InputError(f"the image {_name(embeddings, row)!r} is in none of the image lists")
    cell.imshow(load(images.paths[place], at_least=THUMBNAIL))
    cell.set_title(f"{title}\n{_label(embeddings, row)}", fontsize=7, color=colour)
    cell.set_xticks([])
    cell.set_yticks([])
    for side in cell.spines.values():
        side.set_color(colour)
        side.set_linewidth(3)


def _label(embeddings: Embeddings, row: int) -> str:
    """The class of a row, or its name where there is none, short enough for a title."""
    label = int(embeddings.labels[row])
    text = _name(embeddings, row) if label < 0 else str(label)
    text = embeddings.label_names[label] if label >= 0 and embeddings.label_names else text
    text = escape(text).replace("$", r"\$")  # no formula
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _name(embeddings: Embeddings, row: int) -> str:
    return escape(embeddings.names[row].decode())


def _scatter(axes: "Axes", plane: np.ndarray, embeddings: Embeddings, rows: np.ndarray) -> None:
    labels = embeddings.labels[rows]
    known = np.unique(labels[labels >= 0])
    unknown = labels < 0
    if unknown.any():
        axes.scatter(plane[unknown, 0], plane[unknown, 1], s=6, color="#bbbbbb", label="unknown")
    if len(known) > LEGEND:
        number = np.searchsorted(known, labels[~unknown])
        axes.scatter(plane[~unknown, 0], plane[~unknown, 1], s=8, c=number, cmap="hsv")
        axes.set_xlabel(f"{len(known):,} classes, coloured by their order")
        return
    for number, label in enumerate(known):
        inside = labels == label
        text = _label(embeddings, int(rows[np.flatnonzero(inside)[0]]))
        colour, marker = f"C{number % 10}", "o^"[number // 10]
        x, y = plane[inside].T
        axes.scatter(x, y, s=10, color=colour, marker=marker, label=text)
    if len(known):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _figure_class() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib; install mltool with its extra `plot`") from error
    return Figure


def _png(figure: "Figure") -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None})
    return picture.getvalue()
