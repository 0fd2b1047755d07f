import math

import pytest
import torch
from loss_cases import DEGREES, LABELS, assert_same, random_batch, unit
from pytorch_metric_learning import losses, regularizers
from pytorch_metric_learning.distances import DotProductSimilarity

from mltool.losses.n_pair import n_pair


def test_is_the_equation() -> None:
    vectors = unit(DEGREES) * torch.arange(1, 9)[:, None]  # lengths differ
    points = vectors.tolist()
    firsts = {0: (0, 1), 1: (2, 4), 2: (5, 6)}  # class 3 has no pair

    def dot(i: int, j: int) -> float:
        return sum(a * b for a, b in zip(points[i], points[j], strict=True))

    total = 0.0
    for anchor, own in firsts.values():
        others = [p for _, p in firsts.values() if p != own]
        total += math.log(1 + sum(math.exp(dot(anchor, p) - dot(anchor, own)) for p in others))
    norm = sum(dot(i, i) for i in range(8)) / 8
    ours = n_pair(vectors, torch.tensor(LABELS), norm_weight=0.1)
    assert ours.item() == pytest.approx(total / 3 + 0.1 * norm)


@pytest.mark.parametrize("norm_weight", [0.0, 0.005])
def test_is_pml_without_normalisation(norm_weight: float) -> None:
    vectors, labels = random_batch()
    vectors.requires_grad_()
    theirs = losses.NPairsLoss(
        distance=DotProductSimilarity(normalize_embeddings=False),
        embedding_regularizer=regularizers.LpRegularizer(power=2),
        embedding_reg_weight=norm_weight,
    )(vectors, labels)
    assert_same(n_pair(vectors, labels, norm_weight=norm_weight), theirs, vectors)


def test_unknown_labels_make_no_pair() -> None:
    vectors, labels = random_batch()
    known = torch.arange(24) % 6 > 1
    ours = n_pair(vectors, torch.where(known, labels, -1), norm_weight=0.0)
    torch.testing.assert_close(ours, n_pair(vectors[known], labels[known], norm_weight=0.0))
    assert n_pair(vectors, torch.full_like(labels, -1), norm_weight=0.0) == 0
