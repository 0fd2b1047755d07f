import math

import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics.pairwise import cosine_similarity
from transfer_cases import STUDENT, TEACHER, Points, random_vectors, turn, unit

from mltool.transfers import pkt as module
from mltool.transfers.pkt import pkt

OURS = ((1.0, 0.1), *STUDENT[1:])


def chances(rows: Points) -> list[list[float]]:
    units = unit(rows)
    cosines = [[sum(a * b for a, b in zip(x, y, strict=True)) for y in units] for x in units]
    return [[(1 + c) / sum(1 + d for d in row) for c in row] for row in cosines]


def test_is_the_equation() -> None:
    p, q, n = chances(OURS), chances(TEACHER), len(OURS)
    total = sum(
        q[i][j] * math.log((q[i][j] + 1e-7) / (p[i][j] + 1e-7)) for i in range(n) for j in range(n)
    )
    student, teacher = (torch.tensor(rows, dtype=torch.float64) for rows in (OURS, TEACHER))
    assert pkt(student, teacher).item() == pytest.approx(total / n**2, rel=1e-12)


def test_is_the_divergence_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_EPS", 0.0)
    student, teacher = (vectors.detach() for vectors in random_vectors(9))
    shares = [torch.from_numpy(cosine_similarity(x) + 1) for x in (student, teacher)]
    p, q = (s / s.sum(dim=1, keepdim=True) for s in shares)
    expected = F.kl_div(p.log(), q, reduction="batchmean") / 9
    torch.testing.assert_close(pkt(student, teacher), expected)


def test_lengths_and_turns_change_nothing() -> None:
    student, teacher = random_vectors()
    lengths = torch.linspace(0.1, 9, 7, dtype=torch.float64)[:, None]
    value = pkt(student, teacher)
    torch.testing.assert_close(pkt(lengths * student @ turn(3), teacher), value)
    torch.testing.assert_close(pkt(student, lengths * teacher @ turn(5)), value)


def test_is_not_symmetric_and_positive() -> None:
    student, teacher = random_vectors()
    assert pkt(student, teacher) > 0
    assert pkt(student, teacher) != pkt(teacher, student)


def test_no_chance_is_below_zero() -> None:
    vectors = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    vectors = torch.cat([vectors, -vectors])  # rounding takes cosines below -1
    assert (module._probabilities(vectors) >= 0).all()
    opposite = torch.cat([vectors[:1], -vectors[:1]]).requires_grad_()
    value = pkt(opposite, vectors[:2])
    (gradient,) = torch.autograd.grad(value, opposite)
    assert value.isfinite()
    assert gradient.isfinite().all()
