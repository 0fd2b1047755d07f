import math

import pytest
import torch
from scipy.spatial.distance import cdist
from transfer_cases import STUDENT, TEACHER, points, random_vectors, turn, unit

from mltool.transfers.relaxed_contrastive import relaxed_contrastive


@pytest.mark.parametrize(("sigma", "delta"), [(1.0, 1.0), (0.5, 1.3), (4.0, 0.7)])
def test_is_the_equation(sigma: float, delta: float) -> None:
    n, total, theirs = len(STUDENT), 0.0, unit(TEACHER)
    for i in range(n):
        mean = sum(math.dist(STUDENT[i], STUDENT[j]) for j in range(n)) / n
        for j in range(n):
            if j != i:
                label = math.exp(-(math.dist(theirs[i], theirs[j]) ** 2) / sigma)
                relative = math.dist(STUDENT[i], STUDENT[j]) / mean
                total += label * relative**2 + (1 - label) * max(0.0, delta - relative) ** 2
    value = relaxed_contrastive(*points(), sigma=sigma, delta=delta)
    assert value.item() == pytest.approx(total / n)
    by_pairs = relaxed_contrastive(*points(), sigma=sigma, delta=delta, normalizer="pairs")
    assert by_pairs.item() == pytest.approx(total / (n * (n - 1)))


def test_is_scipy() -> None:
    student, teacher = random_vectors(12)
    units = teacher / teacher.norm(dim=1, keepdim=True)
    label = torch.from_numpy(cdist(units, units, "sqeuclidean")).neg().exp()
    apart = torch.from_numpy(cdist(student.detach(), student.detach()))
    relative = apart / apart.mean(dim=1, keepdim=True)
    terms = label * relative**2 + (1 - label) * (1 - relative).clamp(min=0) ** 2
    expected = terms[~torch.eye(12, dtype=torch.bool)].sum() / 12
    torch.testing.assert_close(relaxed_contrastive(student, teacher).detach(), expected)


def test_the_mean_passes_gradients() -> None:
    student, teacher = random_vectors()
    (gradient,) = torch.autograd.grad(relaxed_contrastive(student, teacher), student)
    # along itself, a vector set does not change the loss: with a constant mean it would
    assert (gradient * student).sum().item() == pytest.approx(0, abs=1e-12)
    assert gradient.norm() > 0.1


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_scales_moves_and_turns_of_the_student_change_nothing(scale: float) -> None:
    student, teacher = random_vectors()
    value = relaxed_contrastive(student, teacher)
    moved = scale * student @ turn(3) + 5
    torch.testing.assert_close(relaxed_contrastive(moved, teacher), value)


def test_turns_and_lengths_of_the_teacher_change_nothing() -> None:
    student, teacher = random_vectors()
    lengths = torch.linspace(0.1, 9, len(teacher), dtype=torch.float64)[:, None]
    value = relaxed_contrastive(student, teacher)
    torch.testing.assert_close(relaxed_contrastive(student, lengths * teacher @ turn(5)), value)


def test_the_student_is_not_normalised() -> None:
    student, teacher = random_vectors()
    units = student / student.norm(dim=1, keepdim=True)
    assert relaxed_contrastive(units, teacher) != relaxed_contrastive(student, teacher)


def test_a_batch_of_one_image_is_zero() -> None:
    student, teacher = random_vectors(1)
    assert relaxed_contrastive(student, teacher) == 0
    assert relaxed_contrastive(student, teacher, normalizer="pairs") == 0
