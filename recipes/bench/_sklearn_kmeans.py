"""What a user of scikit-learn writes to cluster an embeddings file.

python _sklearn_kmeans.py FILE.h5 K ITERATIONS INIT LABELS.npy
"""

import sys

import h5py
import numpy as np
from sklearn.cluster import KMeans


def main() -> None:
    path, k, iterations, init, output = sys.argv[1:]
    with h5py.File(path) as file:
        vectors = file["embeddings"][()]
    means = KMeans(int(k), init=init, n_init=1, max_iter=int(iterations), tol=0, random_state=0)
    np.save(output, means.fit_predict(vectors))


if __name__ == "__main__":
    main()
