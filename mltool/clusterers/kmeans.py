"""Lloyd, Least Squares Quantization in PCM, IEEE Transactions on Information Theory 1982."""

import numpy as np

from mltool.errors import UsageError


def kmeans(
    vectors: np.ndarray, *, seed: int, k: int = 100, iterations: int = 20
) -> tuple[np.ndarray, np.ndarray]:
    """Cluster the rows around k means, each in the cluster of its nearest mean.

    minimise sum_n |x_n - m_l(n)|^2;  confidence_n = 1 - d_1 / d_2

    d_1 and d_2 are a row's Euclidean distances to its nearest and its second nearest mean: a row
    halfway between two means has confidence 0, and with one mean every row has 1. All rows take
    part in every iteration (faiss by itself takes a sample); the field's evaluations do 20 of them.
    Raises UsageError for k below 1 or above N.

    Args:
        vectors: [N, D].
        seed: draws the rows that the means start from.
        k: number of clusters, each possibly empty.
        iterations: how often the means are moved.

    Returns:
        labels [N] int64, confidence [N] float64.
    """
    import faiss  # takes longer than all other imports together

    if not 1 <= k <= len(vectors):
        raise UsageError(f"{len(vectors)} vectors cannot form {k} clusters; take fewer")
    rows = np.ascontiguousarray(vectors, np.float32)
    search = faiss.Kmeans(
        rows.shape[1],
        k,
        niter=iterations,
        seed=seed,
        min_points_per_centroid=1,
        max_points_per_centroid=len(rows),
    )
    search.train(rows)
    labels = search.assign(rows)[1].astype(np.int64)
    if k == 1:
        return labels, np.ones(len(rows))
    nearest, second = np.sqrt(np.maximum(search.index.search(rows, 2)[0], 0.0), dtype=np.float64).T
    return labels, 1.0 - np.divide(nearest, second, out=np.ones(len(rows)), where=second > 0)
