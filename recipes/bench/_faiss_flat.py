"""faiss alone: exact search of every row of an embeddings file among all, without any metric.

python _faiss_flat.py FILE.h5
"""

import sys

import faiss
import h5py
import numpy as np


def main() -> None:
    with h5py.File(sys.argv[1]) as file:
        vectors, labels = file["embeddings"][()], file["labels"][()]
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(vectors)
    most = int(np.unique(labels, return_counts=True)[1].max())
    index.search(vectors, max(most, 11))


if __name__ == "__main__":
    main()
