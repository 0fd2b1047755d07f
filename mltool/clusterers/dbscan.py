"""Ester et al., A Density-Based Algorithm for Discovering Clusters, KDD 1996."""

import numpy as np

from mltool.clusterers._rows import scale_rows
from mltool.errors import ResourceError
from mltool.exact.blocks import split_rows
from mltool.exact.knn import Resources
from mltool.exact.vector_set import Matrix
from mltool.processors import count_threads
from mltool.settings import Positive

LIBRARY = "sklearn"

_ENTRY_BYTES = 40  # a neighbour in the graph, and in the copies that scikit-learn makes of it
_BLOCK = 2**12  # rows whose neighbours are looked for at a time


def dbscan(
    vectors: Matrix,
    *,
    metric: str,
    resources: Resources,
    eps: Positive = 0.6,
    min_samples: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster dense regions; rows that lie near none are noise.

    core_n: at least min_samples rows m, n among them, with |x_n - x_m| <= eps;
    confidence_n = share of these rows that are in the cluster of n

    Core rows within eps of each other share a cluster, which other rows within eps of a core row
    join. scikit-learn finds the clusters. For the metric cosine rows have unit length: a distance
    of eps is a cosine of 1 - eps^2 / 2. The defaults of eps and min_samples are those of person
    re-identification (Ge et al., "Self-paced Contrastive Learning", NeurIPS 2020), there for
    Jaccard distances: eps must be chosen for the vectors. Raises ResourceError for more neighbours
    than fit into memory.

    Args:
        vectors: [N, D].
        metric: cosine, or else Euclidean distances count.
        resources: memory for the graph of neighbours, and threads.
        eps: largest distance of neighbours, from 0 to 2 for cosine.
        min_samples: rows that a core row has within eps, itself included.

    Returns:
        labels [N] int64 with -1 for noise, confidence [N] float64, 0 for noise.
    """
    from sklearn.cluster import DBSCAN

    if not len(vectors):
        return np.zeros(0, np.int64), np.zeros(0)
    graph = _find_neighbors(vectors, metric, resources, eps)
    labels = DBSCAN(eps=eps, min_samples=min_samples, metric="precomputed").fit(graph).labels_
    labels = labels.astype(np.int64)
    counts = np.diff(graph.indptr)
    same = labels[graph.indices] == np.repeat(labels, counts)
    share = np.add.reduceat(same, graph.indptr[:-1], dtype=np.int64) / counts  # itself counts
    return labels, np.where(labels >= 0, share, 0.0)


def _find_neighbors(vectors: Matrix, metric: str, resources: Resources, eps: float):  # type: ignore[no-untyped-def]
    """Return the distances of all rows within eps as a sparse matrix [N, N] of scipy."""
    from scipy.sparse import vstack
    from sklearn import config_context
    from sklearn.neighbors import NearestNeighbors

    scaled = scale_rows(vectors, np.arange(len(vectors)), metric)
    threads = resources.threads or count_threads()
    search = NearestNeighbors(radius=eps * scaled.factor, n_jobs=threads).fit(scaled.rows)
    blocks, entries = [], 0
    with config_context(working_memory=max(1, resources.max_memory // (4 * threads) // 2**20)):
        for rows in split_rows(len(vectors), _BLOCK):
            block = search.radius_neighbors_graph(scaled.rows[rows], mode="distance")
            block.data /= scaled.factor
            entries += block.nnz
            blocks.append(block)
            if entries * _ENTRY_BYTES > resources.max_memory:
                raise ResourceError(
                    f"{entries:,} and more neighbours lie within eps={eps:g}; take a smaller eps, "
                    "or raise --max-memory"
                )
    return vstack(blocks, format="csr")
