"""What two sets of embeddings have to do with each other: names, labels, models, roles."""

import logging

import numpy as np

from mltool.errors import InputError
from mltool.exact.vector_set import VectorSet, make_vector_sets
from mltool.files.embeddings import Embeddings
from mltool.files.labels import join_labels
from mltool.files.names import find

logger = logging.getLogger(__name__)


def split_roles(embeddings: Embeddings) -> tuple[Embeddings, Embeddings | None]:
    """(queries, gallery) by the columns `is_query` and `is_gallery`; (all, None) without them.

    Where all rows have both roles they are compared all against all. Raises InputError where a
    role is nobody's.
    """
    query, gallery = (embeddings.columns.get(key) for key in ("is_query", "is_gallery"))
    if query is None or gallery is None:
        return embeddings, None
    query, gallery = query.astype(bool), gallery.astype(bool)
    if query.all() and gallery.all():
        return embeddings, None
    for key, column in (("is_query", query), ("is_gallery", gallery)):
        if len(column) and not column.any():
            raise InputError(f"column {key} is 0 in every row; correct the image list")
    return embeddings.take(query), embeddings.take(gallery)


def check_comparable(queries: Embeddings, gallery: Embeddings, *, any_model: bool) -> None:
    """Raise InputError unless both were made by one model and are compared by one metric."""
    if queries.metric != gallery.metric:
        raise InputError(
            f"the queries are compared by {queries.metric}, but the gallery by {gallery.metric}; "
            "embed both with the same model"
        )
    if queries.vectors.shape[1] != gallery.vectors.shape[1]:
        raise InputError(
            f"the queries are {queries.vectors.shape[1]}-d vectors, but the gallery holds "
            f"{gallery.vectors.shape[1]}-d ones; embed both with the same model"
        )
    if any_model or queries.space == gallery.space != "":
        return
    if queries.teacher_space == gallery.space != "" or gallery.teacher_space == queries.space != "":
        logger.info("asymmetric: a student's vectors against its teacher's")
        return
    if not (queries.space and gallery.space):
        logger.warning("which model made the vectors is not known of both files; not compared")
        return
    raise InputError(
        f"the queries were made by model {_shown(queries)}, but the gallery by "
        f"{_shown(gallery)}; embed both with the same model, or say --any-model"
    )


def _shown(embeddings: Embeddings) -> str:
    """A space, short enough for a message: the model's digest and what of it was used."""
    digest, slash, part = embeddings.space.partition("/")
    return digest[:12] + slash + part


def as_vector_sets(queries: Embeddings, gallery: Embeddings | None) -> tuple[VectorSet, VectorSet]:
    """Both sides, ready to be searched; without a gallery twice the same. Raises InputError."""
    other = None if gallery is None else (gallery.vectors, gallery.names)
    one, two = make_vector_sets((queries.vectors, queries.names), other, metric=queries.metric)
    return (one, one) if gallery is None else (one, two)


def own_rows(queries: np.ndarray, gallery: np.ndarray | None) -> np.ndarray:
    """For each query name the gallery row of the same name [Q] int64, -1 where there is none."""
    if gallery is None:
        return np.arange(len(queries))
    return find(gallery, queries)


def codes(queries: Embeddings, gallery: Embeddings | None) -> tuple[np.ndarray, np.ndarray]:
    """Labels as int32 codes [Q], [N] that are equal where the labels are; -1 stays -1.

    By text when both have label names, as integers when neither has. Raises InputError.
    """
    both = [queries] if gallery is None else [queries, gallery]
    labels, _ = join_labels(both)
    known = np.unique(labels[labels >= 0])
    found = np.where(labels >= 0, np.searchsorted(known, labels), -1).astype(np.int32)
    return found[: len(queries)], found if gallery is None else found[len(queries) :]
