"""Lloyd, Least Squares Quantization in PCM, IEEE Transactions on Information Theory 1982."""

from typing import Annotated

import numpy as np

from mltool.clusterers._rows import assign, compare_distances, scale_rows
from mltool.errors import InputError, ResourceError
from mltool.exact.knn import Resources
from mltool.exact.vector_set import Matrix
from mltool.processors import count_threads
from mltool.settings import Neutral

LIBRARY = "faiss"

_ROW_BYTES = 24  # faiss's own memory for each row whose mean it looks for


def kmeans(
    vectors: Matrix,
    *,
    seed: int,
    metric: str,
    resources: Resources,
    k: int = 100,
    iterations: int = 20,
    restarts: int = 1,
    sample: Annotated[int | None, Neutral(None)] = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster the rows around k means, each in the cluster of its nearest mean.

    minimise sum_n |x_n - m_l(n)|^2;  confidence_n = 1 - d_1 / d_2

    d_1 and d_2 are a row's Euclidean distances to its nearest and its second nearest mean: a row
    halfway between two means has confidence 0, and with one mean every row has 1. For the metric
    cosine rows and means have unit length (spherical k-means: Dhillon, Modha, Machine Learning
    2001). faiss moves the means; the clusters are those of an exact search for the nearest of them,
    ties going to the lower number. Raises InputError for fewer rows than k, ResourceError where the
    rows that move the means do not fit into memory.

    Args:
        vectors: [N, D].
        seed: draws the rows that the means start from.
        metric: cosine, or else Euclidean distances count.
        resources: memory for a copy of the rows, and threads.
        k: number of clusters, each possibly empty.
        iterations: how often the means are moved; the field's evaluations do it 20 times.
        restarts: how many starts are tried; the clusters with the least sum of squares are kept.
        sample: how many rows, drawn by the seed, move the means; all of them without it.

    Returns:
        labels [N] int64, confidence [N] float64.
    """
    if not 1 <= k <= len(vectors):
        raise InputError(f"{len(vectors)} vectors cannot form {k} clusters; take a smaller k")
    rows = _draw_sample(len(vectors), sample, k, seed)
    size = len(rows) * (4 * vectors.shape[1] + _ROW_BYTES)
    if size > resources.max_memory:
        raise ResourceError(
            f"k-means takes {size / 2**20:,.0f} MiB for {len(rows):,} vectors; raise --max-memory, "
            "or let fewer move the means (--method kmeans:sample=100000)"
        )
    scaled = scale_rows(vectors, rows, metric)
    best = None
    for restart in range(restarts):
        start = np.random.default_rng([seed, restart]).choice(len(rows), k, replace=False)
        means = _move_means(scaled.rows, scaled.rows[start], iterations, metric, resources)
        labels, distances = assign(vectors, means / scaled.factor, metric, resources)
        inertia = float(np.square(distances[:, 0]).sum())
        if best is None or inertia < best[0]:
            best = inertia, labels, distances
    assert best is not None
    _, labels, distances = best
    return labels, compare_distances(distances)


def _draw_sample(count: int, sample: int | None, k: int, seed: int) -> np.ndarray:
    """Return the rows that move the means, ascending: all, or at least k of them."""
    if sample is None or sample >= count:
        return np.arange(count)
    return np.sort(np.random.default_rng(seed).choice(count, max(sample, k), replace=False))


def _move_means(
    rows: np.ndarray, start: np.ndarray, iterations: int, metric: str, resources: Resources
) -> np.ndarray:
    """Move means from `start` [k, D] among float32 rows [N, D]; an empty one splits a large one."""
    import faiss  # takes longer than all other imports together

    k, dim = start.shape
    clustering = faiss.Clustering(dim, k)
    clustering.niter = iterations
    clustering.min_points_per_centroid = 1
    clustering.max_points_per_centroid = len(rows)  # faiss by itself takes a sample
    clustering.spherical = metric == "cosine"
    faiss.copy_array_to_vector(start.ravel(), clustering.centroids)
    index = faiss.IndexFlatIP(dim) if metric == "cosine" else faiss.IndexFlatL2(dim)
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(resources.threads or count_threads())
    try:
        clustering.train(rows, index)
    finally:
        faiss.omp_set_num_threads(threads)
    return faiss.vector_to_array(clustering.centroids).reshape(k, dim).astype(np.float64)
