"""What a user of pytorch-metric-learning writes to evaluate an embeddings file.

python _pml_accuracy.py FILE.h5
"""

import json
import sys

import h5py
import torch
from pytorch_metric_learning.utils.accuracy_calculator import AccuracyCalculator

METRICS = ("precision_at_1", "r_precision", "mean_average_precision_at_r")


def main() -> None:
    with h5py.File(sys.argv[1]) as file:
        vectors, labels = torch.from_numpy(file["embeddings"][()]), file["labels"][()]
    calculator = AccuracyCalculator(include=METRICS, k="max_bin_count", device=torch.device("cpu"))
    print(json.dumps(calculator.get_accuracy(vectors, torch.from_numpy(labels))))


if __name__ == "__main__":
    main()
