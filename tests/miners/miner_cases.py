"""Small inputs for the tests of miners."""

import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.losses import Pairs, pairs_from_labels

DIM = 5


def example(seed: int = 0, rows: int = 20, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Unit vectors [rows, DIM] float64 and balanced labels [rows]."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(rows, DIM, generator=generator, dtype=torch.float64)
    return F.normalize(vectors, dim=1), torch.arange(rows) % classes


def square_of(vectors: Tensor, labels: Tensor) -> Pairs:
    """A batch against itself."""
    itself = torch.eye(len(labels), dtype=torch.bool)
    return pairs_from_labels(vectors @ vectors.T, labels, labels, exclude=itself)
