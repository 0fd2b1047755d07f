"""Find the nearest gallery rows of queries exactly, from embeddings."""

from mltool.exact.knn import Neighbors, Resources, find_neighbors
from mltool.files.embeddings import Embeddings
from mltool.files.hits import Hits
from mltool.retrieval.query_gallery import as_vector_sets, check_comparable, find_self_rows


def search(
    queries: Embeddings,
    gallery: Embeddings | None = None,
    *,
    k: int = 10,
    keep_self: bool = True,
    any_model: bool = False,
    resources: Resources | None = None,
) -> Hits:
    """Find the `k` nearest rows of the gallery (default: of the queries themselves), exactly.

    Scores are cosines, dot products or minus the distances; equal ones are ordered by name.
    Without `keep_self` the row with the query's name is left out. Raises InputError if queries and
    gallery are of different models or dimensions.
    """
    if gallery is not None:
        check_comparable(queries, gallery, any_model=any_model)
    hits = nearest(queries, gallery, k=k, keep_self=keep_self, resources=resources)
    names = queries.names if gallery is None else gallery.names
    return Hits.from_rows(queries.names, names, hits.rows, hits.scores)


def nearest(
    queries: Embeddings,
    gallery: Embeddings | None,
    *,
    k: int,
    keep_self: bool,
    resources: Resources | None = None,
) -> Neighbors:
    """Find the nearest rows by number, without comparing the models; see `search`."""
    left, right = as_vector_sets(queries, gallery)
    self_rows = (
        None if keep_self else find_self_rows(left.names, None if gallery is None else right.names)
    )
    return find_neighbors(left, right, k=k, self_rows=self_rows, resources=resources or Resources())
