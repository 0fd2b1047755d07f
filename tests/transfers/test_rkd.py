import math
from itertools import product

import pytest
import torch
from scipy.spatial.distance import pdist, squareform
from torch import Tensor
from transfer_cases import STUDENT, TEACHER, Points, points, random_vectors, turn

from mltool.transfers import rkd as module
from mltool.transfers.rkd import rkd


def huber(first: float, second: float) -> float:
    apart = abs(first - second)
    return apart**2 / 2 if apart < 1 else apart - 0.5


def relative(rows: Points) -> list[list[float]]:
    n = len(rows)
    apart = [[math.dist(a, b) for b in rows] for a in rows]
    mean = sum(map(sum, apart)) / (n * n - n)
    return [[d / mean for d in row] for row in apart]


def cosine(rows: Points, i: int, j: int, k: int) -> float:
    if i in (j, k):
        return 0.0
    first = [a - b for a, b in zip(rows[j], rows[i], strict=True)]
    second = [a - b for a, b in zip(rows[k], rows[i], strict=True)]
    dot = sum(a * b for a, b in zip(first, second, strict=True))
    return dot / (math.hypot(*first) * math.hypot(*second))


def test_is_the_equation() -> None:
    n = len(STUDENT)
    ours, theirs = relative(STUDENT), relative(TEACHER)
    pairs = sum(huber(ours[i][j], theirs[i][j]) for i, j in product(range(n), repeat=2))
    angles = sum(
        huber(cosine(STUDENT, *ijk), cosine(TEACHER, *ijk)) for ijk in product(range(n), repeat=3)
    )
    distance, angle = pairs / n**2, angles / n**3
    assert rkd(*points(), angle=0).item() == pytest.approx(distance)
    assert rkd(*points(), distance=0, angle=1).item() == pytest.approx(angle)
    assert rkd(*points()).item() == pytest.approx(distance + 2 * angle)


def test_distances_are_scipy_and_torch() -> None:
    student, teacher = random_vectors(11)

    def scaled(vectors: Tensor) -> Tensor:
        apart = pdist(vectors.detach())
        return torch.from_numpy(squareform(apart / apart.mean()))

    expected = torch.nn.SmoothL1Loss()(scaled(student), scaled(teacher))
    torch.testing.assert_close(rkd(student, teacher, angle=0).detach(), expected)


def test_the_mean_of_distances_passes_gradients() -> None:
    student, teacher = random_vectors()
    (gradient,) = torch.autograd.grad(rkd(student, teacher), student)
    assert (gradient * student).sum().item() == pytest.approx(0, abs=1e-12)
    assert gradient.norm() > 0.01


@pytest.mark.parametrize("weights", [(1.0, 0.0), (0.0, 1.0)])
def test_moves_turns_and_scales_of_either_side_change_nothing(weights: tuple[float, float]) -> None:
    student, teacher = random_vectors()
    distance, angle = weights
    value = rkd(student, teacher, distance=distance, angle=angle)
    for ours, theirs in [
        (7 * student @ turn(3) - 2, teacher),
        (student, 0.2 * teacher @ turn(5) + 3),
    ]:
        again = rkd(ours, theirs, distance=distance, angle=angle)
        torch.testing.assert_close(again, value)


def test_zero_for_a_turned_and_scaled_teacher() -> None:
    _, teacher = random_vectors()
    assert rkd(0.3 * teacher @ turn(5) + 1, teacher).item() == pytest.approx(0, abs=1e-14)


@pytest.mark.parametrize("vertices", [1, 2, 3])
def test_chunks_give_the_same_value_and_gradient(
    vertices: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    student, teacher = random_vectors(7)
    whole = rkd(student, teacher)
    (expected,) = torch.autograd.grad(whole, student)
    calls = []
    difference = module._difference

    def counted(student: Tensor, teacher: Tensor, rows: Tensor) -> Tensor:
        calls.append(rows.tolist())
        return difference(student, teacher, rows)

    monkeypatch.setattr(module, "_difference", counted)
    per_vertex = 7 * (3 + 5 + 2 * 7) * 8
    monkeypatch.setattr(module, "_CHUNK_BYTES", vertices * per_vertex)
    value = rkd(student, teacher)
    assert max(map(len, calls)) == vertices
    assert [row for rows in calls for row in rows] == list(range(7))
    torch.testing.assert_close(value, whole)
    (gradient,) = torch.autograd.grad(value, student)
    torch.testing.assert_close(gradient, expected)
    assert torch.autograd.gradcheck(lambda x: rkd(x, teacher), student)


def test_the_backward_keeps_no_angles() -> None:
    student, teacher = random_vectors(24)
    kept = 0

    def count(tensor: Tensor) -> Tensor:
        nonlocal kept
        kept += tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        rkd(student, teacher)
    assert 0 < kept < 24**3


def test_duplicates_pull_at_nothing() -> None:
    student, teacher = random_vectors()
    vectors = student.detach().clone()
    vectors[1] = vectors[0]
    vectors.requires_grad_()
    (gradient,) = torch.autograd.grad(rkd(vectors, teacher), vectors)
    assert gradient.norm() < 10  # published code has 1e12 where a direction is undefined


def test_a_far_origin_costs_no_precision() -> None:
    student, teacher = random_vectors()
    near = rkd(student.detach(), teacher)
    far = rkd((student.detach() + 64).float(), teacher.float() - 128)
    torch.testing.assert_close(far.double(), near, rtol=1e-4, atol=0)


@pytest.mark.parametrize("rows", [1, 2])
def test_too_few_for_relations(rows: int) -> None:
    student, teacher = random_vectors(rows)
    assert rkd(student, teacher).item() == pytest.approx(0, abs=1e-14)
