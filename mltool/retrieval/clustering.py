"""How well a clustering of the vectors agrees with the labels.

A cluster metric is `f(labels, clusters) -> scalar`, both int [N]. NMI is normalised by the
arithmetic mean of the entropies (Oh Song et al., 2016); AMI corrects it for chance (Vinh, Epps,
Bailey, "Information Theoretic Measures for Clusterings Comparison", 2010); F1 is over pairs.
"""

from collections.abc import Callable

import numpy as np


def nmi(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return 2 I(labels; clusters) / (H(labels) + H(clusters)); 1 where both are one group."""
    joint, rows, columns = _tabulate(labels, clusters)
    if not len(joint):
        return float("nan")
    total = joint.sum()
    left, right = (
        _compute_entropy(np.bincount(rows, joint)),
        _compute_entropy(np.bincount(columns, joint)),
    )
    if left + right == 0.0:
        return 1.0
    information = left + right - _compute_entropy(joint.astype(np.float64))
    return float(max(0.0, 2.0 * information / (left + right))) if total else float("nan")


def ami(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return (I - E[I]) / ((H(labels) + H(clusters)) / 2 - E[I]), E over random labellings."""
    if not len(labels):
        return float("nan")
    from sklearn.metrics import adjusted_mutual_info_score

    return float(adjusted_mutual_info_score(labels, clusters))


def f1(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return 2 P R / (P + R) over pairs of rows.

    P is the share of the pairs inside a cluster that are of one class, R the share of the pairs
    inside a class that are in one cluster.
    """
    joint, rows, columns = _tabulate(labels, clusters)
    both = _count_pairs(joint)
    in_class, in_cluster = (
        _count_pairs(np.bincount(rows, joint)),
        _count_pairs(np.bincount(columns, joint)),
    )
    return 2.0 * both / (in_class + in_cluster) if in_class + in_cluster else float("nan")


def purity(labels: np.ndarray, clusters: np.ndarray) -> float:
    """Return sum over clusters of the rows of their largest class / rows; 1 for single rows."""
    joint, _, columns = _tabulate(labels, clusters)
    if not len(joint):
        return float("nan")
    largest = np.zeros(columns.max() + 1, np.int64)
    np.maximum.at(largest, columns, joint)
    return float(largest.sum() / joint.sum())


NAMED: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    "nmi": nmi,
    "ami": ami,
    "f1": f1,
    "purity": purity,
}


def _tabulate(
    labels: np.ndarray, clusters: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the sizes of the non-empty intersections, and the label and cluster of each."""
    rows = np.unique(labels, return_inverse=True)[1]
    distinct, columns = np.unique(clusters, return_inverse=True)
    cells, sizes = np.unique(rows * max(1, len(distinct)) + columns, return_counts=True)
    return sizes, *np.divmod(cells, max(1, len(distinct)))


def _compute_entropy(sizes: np.ndarray) -> float:
    shares = sizes[sizes > 0] / sizes.sum()
    return float(-(shares * np.log(shares)).sum())


def _count_pairs(sizes: np.ndarray) -> float:
    return float((sizes * (sizes - 1.0)).sum() / 2.0)
