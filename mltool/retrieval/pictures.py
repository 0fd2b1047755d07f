"""Draw pictures: rankings with right and wrong marked, the plane of t-SNE, curves.

t-SNE: van der Maaten, Hinton, "Visualizing Data using t-SNE", 2008.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
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
from mltool.retrieval.query_gallery import match_labels, split_roles
from mltool.retrieval.ranking_overlap import find_queries
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


@dataclass(frozen=True, eq=False)
class Ranking:
    """Queries and what they are ranked in, None = themselves; the title is that of the model."""

    title: str
    queries: Embeddings
    gallery: Embeddings | None

    @classmethod
    def from_roles(cls, title: str, embeddings: Embeddings) -> "Ranking":
        """Return the ranking of one file by its columns is_query and is_gallery, if it has them."""
        return cls(title, *split_roles(embeddings))


def draw_rankings(
    rankings: Sequence[Ranking],
    images: Manifest,
    *,
    query_names: Sequence[str] = (),
    worst: int = 8,
    k: int = 8,
) -> bytes:
    """Draw a PNG grid: a query, and its `k` nearest by each model, green if of its class.

    Of each query there is a row a ranking. `images` says where the images of all lie. The queries
    are the `query_names` names, or else the `worst` by average precision of the first ranking. The
    query itself is left out by name. Raises UsageError without matplotlib, InputError for unknown
    names and images that cannot be found.
    """
    figure_class = _import_figure()
    first = rankings[0]
    find_worst = partial(_find_worst, first.queries, first.gallery, worst)
    rows = _find_rows(first.queries, query_names) if query_names else find_worst()
    names = first.queries.names[rows]
    count = len(rows) * len(rankings)
    figure = figure_class(figsize=(1.5 * (k + 1), 1.9 * count), layout="constrained")
    axes = figure.subplots(count, k + 1, squeeze=False)
    for number, ranking in enumerate(rankings):
        rows = find_queries(names, ranking.queries, ranking.title)
        lines = axes[number :: len(rankings)]
        _show_ranking(lines, ranking.queries.take(rows), ranking, images)
        for line in lines if len(rankings) > 1 else ():
            line[0].set_ylabel(_shorten(ranking.title), fontsize=7)
    return _encode_png(figure)


def _show_ranking(axes: np.ndarray, asking: Embeddings, ranking: Ranking, images: Manifest) -> None:
    """Show queries [Q] and their nearest in `axes` [Q, 1 + k]."""
    asked = ranking.queries if ranking.gallery is None else ranking.gallery
    neighbours = nearest(asking, asked, k=axes.shape[1] - 1, keep_self=False)
    query_label_ids, gallery_label_ids = match_labels(asking, asked)
    for number, line in enumerate(axes):
        _show(line[0], asking, number, images, "query", ASKED)
        hits = zip(line[1:], neighbours.rows[number], neighbours.scores[number], strict=True)
        for cell, row, score in hits:
            if row < 0:
                cell.axis("off")
                continue
            unknown = min(query_label_ids[number], gallery_label_ids[row]) < 0
            same = query_label_ids[number] == gallery_label_ids[row]
            mark, colour = MARKS[-1 if unknown else int(same)]
            _show(cell, asked, row, images, f"{mark} {score:.3f}", colour)


def draw_tsne(
    panels: Sequence[tuple[str, Embeddings]], *, limit: int = 5000, seed: int = 0
) -> bytes:
    """Draw the rows as PNG (at most `limit` of them, drawn with `seed`) in the plane, by class.

    `panels` are titles and embeddings, drawn side by side. Raises UsageError without matplotlib,
    InputError for fewer than four rows.
    """
    figure = _import_figure()(figsize=(9 * len(panels), 7), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for panel, (title, embeddings) in zip(axes, panels, strict=True):
        subject = f"{_shorten(title)}: " if len(panels) > 1 else ""
        _draw_plane(panel, embeddings, subject, limit=limit, seed=seed)
    return _encode_png(figure)


def _draw_plane(
    axes: "Axes", embeddings: Embeddings, subject: str, *, limit: int, seed: int
) -> None:
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
    _scatter(axes, plane, embeddings, rows)
    shown = f"{count:,} of {len(embeddings):,}" if count < len(embeddings) else f"{count:,}"
    axes.set_title(f"{subject}t-SNE of {shown} embeddings, perplexity {perplexity:.3g}")
    axes.set_xticks([])
    axes.set_yticks([])


def draw_lines(
    x: Sequence[float], curves: Mapping[str, Sequence[float]], *, across: str, up: str
) -> bytes:
    """Draw curves by name over common abscissas `x` as PNG.

    `across` and `up` are the titles of the axes.

    Raises UsageError without matplotlib.
    """
    figure = _import_figure()(figsize=(5, 4), layout="constrained")
    axes = figure.subplots()
    for (name, values), style in zip(curves.items(), cycle(("-o", "--s", ":^")), strict=False):
        axes.plot(x, values, style, markersize=4, label=name)
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.grid(alpha=0.3)
    axes.legend(frameon=False)
    return _encode_png(figure)


def _find_rows(queries: Embeddings, query_names: Sequence[str]) -> np.ndarray:
    rows = find(queries.names, np.array([name.encode() for name in query_names], "S"))
    for name, row in zip(query_names, rows, strict=True):
        if row < 0:
            near = suggest(name, [each.decode() for each in queries.names.tolist()])
            raise InputError(f"no query is called {escape(name)!r}{near}")
    return rows


def _find_worst(queries: Embeddings, gallery: Embeddings | None, count: int) -> np.ndarray:
    """Find the rows [count] of the lowest average precision, ties by name."""
    values = evaluate(queries, gallery, metrics=["map"], any_model=True).per_query["map"]
    if np.isnan(values).all():
        raise InputError("no query has a relevant row, so none is worst; choose some by --query")
    order = np.lexsort((queries.names, values))  # NaN comes last
    return order[: min(count, np.count_nonzero(~np.isnan(values)))]


def _show(
    cell: "Axes", embeddings: Embeddings, row: int, images: Manifest, title: str, colour: str
) -> None:
    image = int(find(images.names, embeddings.names[row : row + 1])[0])
    if image < 0:
        raise InputError(
            f"the image {_title_name(embeddings, row)!r} is in none of the image lists"
        )
    cell.imshow(load(images.paths[image], at_least=THUMBNAIL))
    cell.set_title(f"{title}\n{_title_label(embeddings, row)}", fontsize=7, color=colour)
    cell.set_xticks([])
    cell.set_yticks([])
    for side in cell.spines.values():
        side.set_color(colour)
        side.set_linewidth(3)


def _title_label(embeddings: Embeddings, row: int) -> str:
    """Return the class of a row, or its name if it has none, short enough for a title."""
    label = int(embeddings.labels[row])
    text = _title_name(embeddings, row) if label < 0 else str(label)
    text = embeddings.label_names[label] if label >= 0 and embeddings.label_names else text
    return _shorten(text)


def _shorten(text: str) -> str:
    """Return a text short enough for a title, and no formula."""
    text = escape(text).replace("$", r"\$")
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 1]}…"


def _title_name(embeddings: Embeddings, row: int) -> str:
    return escape(embeddings.names[row].decode())


def _scatter(axes: "Axes", plane: np.ndarray, embeddings: Embeddings, rows: np.ndarray) -> None:
    labels = embeddings.labels[rows]
    classes = np.unique(labels[labels >= 0])
    unknown = labels < 0
    if unknown.any():
        axes.scatter(plane[unknown, 0], plane[unknown, 1], s=6, color="#bbbbbb", label="unknown")
    if len(classes) > LEGEND:
        number = np.searchsorted(classes, labels[~unknown])
        axes.scatter(plane[~unknown, 0], plane[~unknown, 1], s=8, c=number, cmap="hsv")
        axes.set_xlabel(f"{len(classes):,} classes, coloured by their order")
        return
    for number, label in enumerate(classes):
        inside = labels == label
        text = _title_label(embeddings, int(rows[np.flatnonzero(inside)[0]]))
        colour, marker = f"C{number % 10}", "o^"[number // 10]
        x, y = plane[inside].T
        axes.scatter(x, y, s=10, color=colour, marker=marker, label=text)
    if len(classes):
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False, fontsize=8)


def _import_figure() -> "type[Figure]":
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise UsageError("plots need matplotlib; install mltool with its extra `plot`") from error
    return Figure


def _encode_png(figure: "Figure") -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=120, metadata={"Software": None})
    return picture.getvalue()
