"""Write lars.json: the course of two parameters under lightly's LARS, in float64.

    python tests/golden/lars.py > tests/golden/lars.json

needs lightly 1.6.0 (lightly.utils.lars), which is no dependency of the tests.
"""

import json

import torch
from lightly.utils.lars import LARS

STEPS, LR, MOMENTUM, WEIGHT_DECAY = 7, 0.6, 0.9, 0.01


def pattern(count: int, phase: float) -> torch.Tensor:
    """Return numbers [count] without structure that any program can make again."""
    return torch.sin(torch.arange(count, dtype=torch.float64) * 1.7 + phase)


def main() -> None:
    """Print the weights after every step."""
    matrix = torch.nn.Parameter(pattern(24, 0.3).reshape(4, 6))
    bias = torch.nn.Parameter(pattern(4, 0.8))
    # lightly scales no group without decay
    groups = [
        {"params": [matrix], "weight_decay": WEIGHT_DECAY},
        {"params": [bias], "weight_decay": 0.0},
    ]
    optimizer = LARS(groups, lr=LR, momentum=MOMENTUM, trust_coefficient=0.001, eps=0.0)
    course = []
    for step in range(STEPS):
        matrix.grad = pattern(24, 1.1 * step).reshape(4, 6) * (1 + step)
        bias.grad = pattern(4, 0.7 * step)
        optimizer.step()
        course.append({"matrix": matrix.flatten().tolist(), "bias": bias.tolist()})
    settings = {"lr": LR, "momentum": MOMENTUM, "weight_decay": WEIGHT_DECAY}
    print(json.dumps({"lightly": "1.6.0", "settings": settings, "course": course}, indent=1))


if __name__ == "__main__":
    main()
