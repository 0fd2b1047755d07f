import math

import pytest
import torch
from transfer_cases import STUDENT, TEACHER, Points, random_vectors, turn, unit

from mltool.transfers.darkrank import darkrank

OURS, THEIRS = unit(((1.0, 0.1), *STUDENT[1:])), unit(TEACHER)
# rows 0, 3 and 4 are the same: nearest to each other, tied for all the rest
TIED = (THEIRS[4], THEIRS[1], THEIRS[2], THEIRS[4], THEIRS[4], THEIRS[5])


def by_loop(theirs: Points, alpha: float, beta: float, length: int) -> float:
    n, total = len(OURS), 0.0
    for a in range(n):
        others = sorted((math.dist(theirs[a], theirs[x]), x) for x in range(n) if x != a)[:length]
        score = {x: -alpha * math.dist(OURS[a], OURS[x]) ** beta for _, x in others}
        for apart, x in others:
            no_nearer = [y for further, y in others if further >= apart]
            total -= score[x] - math.log(sum(math.exp(score[y]) for y in no_nearer))
    return total / n


@pytest.mark.parametrize("theirs", [THEIRS, TIED], ids=["distinct", "tied"])
@pytest.mark.parametrize("length", [1, 3, 4, 5])
@pytest.mark.parametrize(("alpha", "beta"), [(3.0, 3.0), (2.0, 1.0)])
def test_is_the_equation(alpha: float, beta: float, length: int, theirs: Points) -> None:
    student, teacher = (torch.tensor(rows, dtype=torch.float64) for rows in (OURS, theirs))
    value = darkrank(student, teacher, alpha=alpha, beta=beta, length=length)
    assert value.item() == pytest.approx(by_loop(theirs, alpha, beta, length))


def test_none_ranks_all() -> None:
    student, teacher = random_vectors()
    everything = darkrank(student, teacher, length=None)
    assert everything == darkrank(student, teacher, length=6)
    assert everything == darkrank(student, teacher, length=99)
    assert everything != darkrank(student, teacher, length=5)


def test_of_cosines() -> None:
    student, teacher = random_vectors()
    first, second = ((x / x.norm(dim=1, keepdim=True)).detach() for x in (student, teacher))
    ours, theirs = first @ first.T, second @ second.T
    total = 0.0
    for a in range(7):
        others = [x for x in range(7) if x != a]
        for x in others:
            no_nearer = [y for y in others if theirs[a, y] <= theirs[a, x]]
            total -= (ours[a, x] - ours[a, no_nearer].logsumexp(dim=0)).item()
    value = darkrank(student, teacher, alpha=0.5, beta=2.0, length=None)
    assert value.item() == pytest.approx(total / 7)


def test_only_the_order_of_the_teacher_counts() -> None:
    angles = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.4], dtype=torch.float64)
    bent = angles**1.1  # other distances, ranked alike by every row
    line, other = (torch.stack([x.cos(), x.sin()], dim=1) for x in (angles, bent))
    student, _ = random_vectors(5)
    value = darkrank(student, line)
    torch.testing.assert_close(darkrank(student, other), value)
    torch.testing.assert_close(darkrank(9 * student @ turn(3), line @ turn(2)), value)


def test_order_as_the_teachers_is_better_than_the_reverse() -> None:
    angles = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.4], dtype=torch.float64)
    line = torch.stack([angles.cos(), angles.sin()], dim=1)
    assert darkrank(line, line) < darkrank(line[torch.tensor([0, 4, 3, 2, 1])], line)


def test_an_only_neighbour_has_one_order() -> None:
    assert darkrank(*random_vectors(2)) == 0
    assert darkrank(*random_vectors(9), length=1) == 0
