import math

import pytest
import torch
from loss_cases import (
    DEGREES,
    assert_same,
    cosines,
    negatives,
    positives,
    random_batch,
    square,
    square_of,
)
from pytorch_metric_learning import losses, miners

from mltool.losses import Pairs
from mltool.losses.multi_similarity import multi_similarity
from mltool.miners.multi_similarity import multi_similarity as mine

SIM = cosines(DEGREES, DEGREES)


def test_is_the_equation() -> None:
    total = 0.0
    for a in range(len(DEGREES)):
        pull = sum(math.exp(-2 * (SIM[a][p] - 0.5)) for p in positives(a))
        push = sum(math.exp(40 * (SIM[a][n] - 0.5)) for n in negatives(a))
        total += math.log(1 + pull) / 2 + math.log(1 + push) / 40
    assert multi_similarity(square(), beta=40).item() == pytest.approx(total / len(DEGREES))


@pytest.mark.parametrize("settings", [(2.0, 50.0, 0.5), (17.97, 75.66, 0.77)])
def test_is_pml(settings: tuple[float, float, float]) -> None:
    alpha, beta, base = settings
    vectors, labels = random_batch()
    vectors.requires_grad_()
    ours = multi_similarity(square_of(vectors, labels), alpha=alpha, beta=beta, base=base)
    assert_same(ours, losses.MultiSimilarityLoss(alpha, beta, base)(vectors, labels), vectors)


def test_with_its_miner_is_pml() -> None:
    vectors, labels = random_batch(classes=8)
    vectors.requires_grad_()
    mined = miners.MultiSimilarityMiner(0.1)(vectors, labels)
    theirs = losses.MultiSimilarityLoss()(vectors, labels, mined)
    assert_same(multi_similarity(mine(square_of(vectors, labels))), theirs, vectors)


def test_student_anchors_against_a_teacher_are_pml_with_references() -> None:
    student, labels = random_batch()
    teacher, _ = random_batch(seed=9)
    student.requires_grad_()
    # PML takes references with the very same label tensor for the batch itself: hence the clone
    theirs = losses.MultiSimilarityLoss()(
        student, labels, ref_emb=teacher, ref_labels=labels.clone()
    )
    same = (labels[:, None] == labels).double()
    pairs = Pairs(student @ teacher.T, same, 1 - same)
    assert_same(multi_similarity(pairs), theirs, student)


def test_one_positive_of_weight_w_has_its_closed_form() -> None:
    sim = torch.tensor([[0.2]], dtype=torch.float64)
    pairs = Pairs(sim, torch.full_like(sim, 0.3), torch.zeros_like(sim))
    expected = math.log(1 + 0.3 * math.exp(-2 * (0.2 - 0.5))) / 2
    assert multi_similarity(pairs).item() == pytest.approx(expected)
