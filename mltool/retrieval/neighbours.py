"""The nearest gallery rows of queries, from embeddings (exact) or from an index."""

from mltool.exact.knn import Neighbors, Resources, find_neighbors
from mltool.files.embeddings import Embeddings
from mltool.files.hits import Hits
from mltool.retrieval.query_gallery import as_vector_sets, check_comparable, own_rows


def search(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    *,
    k: int = 10,
    keep_self: bool = True,
    any_model: bool = False,
    resources: Resources | None = None,
) -> Hits:
    """The `k` nearest rows of the gallery (default: of the queries themselves), exactly.

    Scores are cosines, dot products or minus the distances; equal ones are ordered by name.
    Without `keep_self` the row with the query's own name is left out. Raises InputError where the
    two do not fit.
    """
    if gallery is not None:
        check_comparable(queries, gallery, any_model=any_model)
    found = nearest(queries, gallery, k=k, keep_self=keep_self, resources=resources)
    names = queries.names if gallery is None else gallery.names
    return Hits.from_rows(queries.names, names, found.rows, found.scores)


def nearest(
    queries: Embeddings,
    gallery: Embeddings | None,
    *,
    k: int,
    keep_self: bool,
    resources: Resources | None = None,
) -> Neighbors:
    """Like `search`, but row numbers for names, and the models are not compared."""
    left, right = as_vector_sets(queries, gallery)
    own = None if keep_self else own_rows(left.names, None if gallery is None else right.names)
    return find_neighbors(left, right, k=k, self_rows=own, resources=resources or Resources())
