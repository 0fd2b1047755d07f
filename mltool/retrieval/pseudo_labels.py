"""Which rows of a clustering become pseudo-labels, what these are called, and how good they are."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from mltool.errors import InputError
from mltool.retrieval import clustering


@dataclass(frozen=True, eq=False)
class PseudoLabels:
    """Clusters of N rows, and which rows keep theirs."""

    labels: np.ndarray  # [N] int64, -1 = noise
    confidence: np.ndarray  # [N] float64 from 0 to 1
    kept: np.ndarray  # [N] bool
    counts: Mapping[str, int]  # what was left out, in the order of the steps

    def list_sizes(self) -> np.ndarray:
        """Return the number of rows of each cluster that is kept, ascending."""
        return np.sort(np.unique(self.labels[self.kept], return_counts=True)[1])

    def rename(
        self, name_class: Callable[[int], str] | None = None
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Return labels [N] into the names of the kept clusters, and these names.

        Rows that are left out have -1. Clusters that are classes are called as `name_class` says.
        Cluster 7 of 400 is called `cluster-007`, which no class is called: pseudo-labels must not
        be taken for true ones.
        """
        present = np.unique(self.labels[self.kept])
        labels = np.where(self.kept, np.searchsorted(present, self.labels), -1)
        if name_class is None:
            digits = len(str(int(self.labels.max())))
            return labels, tuple(f"cluster-{number:0{digits}}" for number in present.tolist())
        return labels, tuple(map(name_class, present.tolist()))


def choose_rows(
    labels: np.ndarray, confidence: np.ndarray, *, min_confidence: float, min_size: int
) -> PseudoLabels:
    """Leave out noise, then rows below `min_confidence`, then clusters below `min_size` rows.

    Raises InputError if no row is left.
    """
    clustered = labels >= 0
    sure = clustered & (confidence >= min_confidence)
    _, cluster, sizes = np.unique(labels[sure], return_inverse=True, return_counts=True)
    kept = sure.copy()
    kept[sure] = sizes[cluster] >= min_size
    counts = {
        "noise": int((~clustered).sum()),
        "below_confidence": int((clustered & ~sure).sum()),
        "below_size": int((sure & ~kept).sum()),
    }
    if not kept.any():
        noise, unsure, small = counts.values()
        raise InputError(
            f"no cluster is left of {len(labels):,} images ({noise:,} are noise, {unsure:,} below "
            f"--min-confidence, {small:,} in clusters below --min-size); lower these, or set "
            "--method otherwise"
        )
    return PseudoLabels(labels, confidence, kept, counts)


def compare_with_truth(clusters: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Return every cluster metric of rows whose true class is known.

    `clusters` [N] are -1 where a row is left out, `truth` ['S', N] is empty where the class is not
    known: such rows count in no metric.
    """
    rows = (clusters >= 0) & (truth != b"")
    classes = np.unique(truth[rows], return_inverse=True)[1]
    return {name: metric(classes, clusters[rows]) for name, metric in clustering.NAMED.items()}
