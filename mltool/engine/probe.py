"""How well the vectors of a model in training tell classes apart; reported, and selects nothing."""

from dataclasses import dataclass

import numpy as np

from mltool.engine.data import BatchSource
from mltool.exact.knn import Resources
from mltool.exact.vector_set import make_vector_sets
from mltool.retrieval import classification

NEIGHBORS = 20  # as in the benchmarks of small data (lightly's Imagenette)


@dataclass(frozen=True)
class Probe:
    """Labelled images, looked at after every `every` epochs and at the end."""

    source: BatchSource
    every: int
    batch_size: int
    precision: str

    def measure(self, vectors: np.ndarray) -> dict[str, float]:
        """Return the k-NN accuracy of vectors [N, D] by name, each image left out in its turn.

        By cosine; k is 20, or what few images allow.
        """
        names, labels = self.source.manifest.names, self.source.manifest.labels
        k = max(1, min(NEIGHBORS, len(labels) - 1))
        both, _ = make_vector_sets((vectors, names), None, metric="cosine")
        rows, resources = np.arange(len(labels)), Resources()
        probe = classification.Probe(both, both, labels, labels, rows, 0, resources)
        name = f"knn-accuracy@{k}"
        return {name: float(probe.score(name).mean())}
