"""Relate queries to a gallery: by their roles, models, names and labels."""

import logging

import numpy as np

from mltool.errors import InputError
from mltool.exact.vector_set import VectorSet, make_vector_sets
from mltool.files.embeddings import Embeddings
from mltool.files.labels import join_labels
from mltool.files.names import find

logger = logging.getLogger(__name__)


def split_roles(embeddings: Embeddings) -> tuple[Embeddings, Embeddings | None]:
    """Split rows into (queries, gallery) by the columns `is_query` and `is_gallery`.

    Without these columns, and where all rows have both roles, the answer is (all, None): all rows
    are compared with all. Raises InputError if no row has one of the roles.
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
        f"the queries were made by model {_shorten_space(queries)}, but the gallery by "
        f"{_shorten_space(gallery)}; embed both with the same model, or say --any-model"
    )


def _shorten_space(embeddings: Embeddings) -> str:
    """Shorten a space for a message: the model's digest and what of it was used."""
    digest, slash, rest = embeddings.space.partition("/")
    return digest[:12] + slash + rest


def as_vector_sets(queries: Embeddings, gallery: Embeddings | None) -> tuple[VectorSet, VectorSet]:
    """Make queries and gallery ready to be searched; without a gallery both are the same object.

    Raises InputError for different dimensions, NotFiniteError for NaN and infinity.
    """
    other = None if gallery is None else (gallery.vectors, gallery.names)
    one, two = make_vector_sets((queries.vectors, queries.names), other, metric=queries.metric)
    return (one, one) if gallery is None else (one, two)


def find_self_rows(queries: np.ndarray, gallery: np.ndarray | None) -> np.ndarray:
    """Find for each query name the gallery row of the same name: [Q] int64, -1 = none."""
    if gallery is None:
        return np.arange(len(queries))
    return find(gallery, queries)


def match_labels(queries: Embeddings, gallery: Embeddings | None) -> tuple[np.ndarray, np.ndarray]:
    """Number the labels of both by int32 ids [Q], [N] that are equal where the labels are.

    -1 (unknown) stays -1. Labels are equal by their text if both have label names, and as integers
    if neither has. Raises InputError if one alone has label names.
    """
    both = [queries] if gallery is None else [queries, gallery]
    labels, _ = join_labels(both)
    distinct = np.unique(labels[labels >= 0])
    label_ids = np.where(labels >= 0, np.searchsorted(distinct, labels), -1).astype(np.int32)
    return label_ids[: len(queries)], label_ids if gallery is None else label_ids[len(queries) :]
