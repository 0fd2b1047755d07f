"""Small inputs for the tests of transfers, and calls with all that each of them needs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from mltool import components

NAMES = components.names("transfers")
STUDENT_DIM, TEACHER_DIM = 3, 5
STUDENT_CHANNELS, TEACHER_CHANNELS = (4, 6), (5, 3)
IMAGES = 20

# hand-placed points: the student's in the plane, the teacher's in space
STUDENT = ((0.0, 0.0), (1.0, 0.5), (2.5, -1.0), (-0.5, 2.0), (3.0, 3.0), (0.3, -2.0))
TEACHER = (
    (1.0, 0.2, 0.0),
    (0.8, 0.9, 0.1),
    (-1.0, 0.4, 2.0),
    (0.1, -1.5, 0.7),
    (2.0, 0.3, -0.6),
    (-0.2, 0.5, -1.0),
)

Points = tuple[tuple[float, ...], ...]


def points() -> tuple[Tensor, Tensor]:
    """The hand-placed points, float64."""
    return torch.tensor(STUDENT, dtype=torch.float64), torch.tensor(TEACHER, dtype=torch.float64)


def unit(rows: Points) -> Points:
    """Points at unit length, by plain Python."""
    return tuple(tuple(x / math.hypot(*row) for x in row) for row in rows)


def turn(dim: int, seed: int = 4) -> Tensor:
    """A random rotation or reflection, [dim, dim] float64."""
    generator = torch.Generator().manual_seed(seed)
    return torch.linalg.qr(torch.randn(dim, dim, generator=generator, dtype=torch.float64)).Q


def random_vectors(rows: int = 7, *, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Vectors of a student, with gradient, and of a teacher; float64."""
    generator = torch.Generator().manual_seed(seed)
    student = torch.randn(rows, STUDENT_DIM, generator=generator, dtype=torch.float64)
    teacher = torch.randn(rows, TEACHER_DIM, generator=generator, dtype=torch.float64)
    return student.requires_grad_(), teacher


def load(name: str, settings: str = "", seed: int = 0) -> Callable[..., Tensor]:
    """A transfer with everything that it may ask for; a module in float64."""
    loss = components.load(
        "transfers",
        f"{name}:{settings}",
        student_dim=STUDENT_DIM,
        teacher_dim=TEACHER_DIM,
        student_channels=STUDENT_CHANNELS,
        teacher_channels=TEACHER_CHANNELS,
        images=IMAGES,
        generator=torch.Generator().manual_seed(seed),
    )
    return loss.double() if isinstance(loss, nn.Module) else loss


def needs(name: str, rows: int = 7, *, seed: int = 0) -> dict[str, object]:
    """What a transfer is passed by keyword; the student's maps have a gradient."""
    generator = torch.Generator().manual_seed(seed)

    def maps(channels: tuple[int, ...], size: int) -> list[Tensor]:
        return [
            torch.randn(rows, c, size - i, size, generator=generator, dtype=torch.float64)
            for i, c in enumerate(channels)
        ]

    known: dict[str, dict[str, object]] = {
        "maps": {
            "student_maps": [m.requires_grad_() for m in maps(STUDENT_CHANNELS, 4)],
            "teacher_maps": maps(TEACHER_CHANNELS, 3),
        },
        "index": {"index": torch.arange(rows) * 2 % IMAGES},
        "labels": {"labels": torch.arange(rows) % 3},
        "penultimate": {},
    }
    return {
        key: v
        for need in components.describe("transfers", name).declared.needs
        for key, v in known[need].items()
    }
