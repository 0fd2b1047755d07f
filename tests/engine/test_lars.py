"""LARS against lightly's numbers and a hand loop; what is excluded; degenerate layers."""

import json
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from mltool.engine.lars import TRUST_COEFFICIENT, Lars, is_vector

GOLDEN = Path(__file__).parent.parent / "golden" / "lars.json"


def pattern(count: int, phase: float) -> Tensor:
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase)


def test_the_course_is_that_of_lightly() -> None:
    golden = json.loads(GOLDEN.read_text())
    settings = golden["settings"]
    matrix, bias = nn.Parameter(pattern(24, 0.3).reshape(4, 6)), nn.Parameter(pattern(4, 0.8))
    decay = settings.pop("weight_decay")
    groups = [{"params": [matrix], "weight_decay": decay}, {"params": [bias]}]
    optimizer = Lars(groups, **settings)
    for step, expected in enumerate(golden["course"]):
        matrix.grad = pattern(24, 1.1 * step).reshape(4, 6) * (1 + step)
        bias.grad = pattern(4, 0.7 * step)
        optimizer.step()
        for name, parameter in (("matrix", matrix), ("bias", bias)):
            goal = torch.tensor(expected[name], dtype=torch.float64)
            torch.testing.assert_close(parameter.flatten(), goal, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("weight_decay", [0.0, 0.1])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_a_loop_over_numbers_gives_the_same(weight_decay: float, momentum: float) -> None:
    weights = [[0.5, -2.0], [1.0, 3.0], [0.0, -0.25]]
    velocity = [[0.0, 0.0] for _ in weights]
    parameter = nn.Parameter(torch.tensor(weights, dtype=torch.float64))
    optimizer = Lars([parameter], lr=0.3, momentum=momentum, weight_decay=weight_decay)
    for step in range(5):
        gradient = [[math.sin(3 * i + j + step) for j in range(2)] for i in range(3)]
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        length = math.sqrt(sum(w * w for row in weights for w in row))
        slope = math.sqrt(sum(g * g for row in gradient for g in row))
        ratio = 0.001 * length / (slope + weight_decay * length)
        for i, row in enumerate(weights):
            for j in range(2):
                pull = ratio * (gradient[i][j] + weight_decay * row[j])
                velocity[i][j] = momentum * velocity[i][j] + pull
                row[j] -= 0.3 * velocity[i][j]
        expected = torch.tensor(weights, dtype=torch.float64)
        torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=1e-14)


def test_the_length_of_the_gradient_does_not_matter() -> None:
    moves = []
    for factor in (1e-6, 1.0, 1e6):
        parameter = nn.Parameter(pattern(12, 0.1).reshape(3, 4))
        start = parameter.detach().clone()
        parameter.grad = factor * pattern(12, 0.9).reshape(3, 4)
        Lars([parameter], lr=1.0).step()
        moves.append(parameter.detach() - start)
        assert float(moves[-1].norm() / start.norm()) == pytest.approx(TRUST_COEFFICIENT)
    torch.testing.assert_close(moves[0], moves[1])
    torch.testing.assert_close(moves[2], moves[1])


@pytest.mark.parametrize("shape", [(), (5,), (1, 5), (1, 1, 5), (5, 1, 1)])
def test_vectors_move_as_with_sgd(shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    ours, theirs = (nn.Parameter(pattern(count, 0.2).reshape(shape)) for _ in range(2))
    assert is_vector(ours)
    assert not is_vector(torch.zeros(2, 1, 3))
    optimizers = Lars([ours], lr=0.1), torch.optim.SGD([theirs], lr=0.1, momentum=0.9)
    for step in range(4):
        ours.grad = theirs.grad = pattern(count, step).reshape(shape)
        for optimizer in optimizers:
            optimizer.step()
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("zero", ["weights", "gradient", "both"])
def test_a_layer_of_zeros_moves_by_its_gradient_alone(zero: str) -> None:
    weights = torch.zeros(3, 2) if zero != "gradient" else torch.ones(3, 2)
    gradient = torch.zeros(3, 2) if zero != "weights" else torch.ones(3, 2)
    parameter = nn.Parameter(weights.clone())
    parameter.grad = gradient
    Lars([parameter], lr=0.5, weight_decay=0.1).step()
    assert torch.equal(parameter.detach(), weights - 0.5 * gradient)


def test_what_has_no_gradient_stays() -> None:
    still, moving = nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(2, 2))
    moving.grad = torch.ones(2, 2)
    Lars([still, moving], lr=0.5, weight_decay=0.1).step()
    assert torch.equal(still, torch.ones(2, 2))
    assert not torch.equal(moving, torch.ones(2, 2))
