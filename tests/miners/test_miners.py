"""Every miner against its definition by brute force and, where PML has it, against PML."""

import math

import pytest
import torch
from miner_cases import DIM, example, square_of
from pytorch_metric_learning import miners
from torch import Tensor

from mltool.losses import Pairs, distance
from mltool.miners.angular import angular
from mltool.miners.distance_weighted import distance_weighted
from mltool.miners.easy_positive import easy_positive
from mltool.miners.hard import hard
from mltool.miners.multi_similarity import multi_similarity
from mltool.miners.random import random
from mltool.miners.semi_hard import semi_hard

Cells = set[tuple[int, int]]


def cells(weight: Tensor) -> Cells:
    return {(int(i), int(j)) for i, j in weight.nonzero()}


def of_indices(rows: Tensor, columns: Tensor) -> Cells:
    return set(zip(rows.tolist(), columns.tolist(), strict=True))


def sides(pairs: Pairs, row: int) -> tuple[dict[int, float], dict[int, float]]:
    """Similarities of a row's positives and negatives, by column."""
    sim = pairs.sim[row].tolist()
    pos = {j: sim[j] for j in pairs.pos[row].nonzero().flatten().tolist()}
    neg = {j: sim[j] for j in pairs.neg[row].nonzero().flatten().tolist()}
    return pos, neg


@pytest.fixture(params=[0, 1, 2])
def batch(request: pytest.FixtureRequest) -> tuple[Tensor, Tensor]:
    vectors, labels = example(seed=request.param)
    labels[0] = 77  # one without positives
    return vectors, labels


def test_multi_similarity(batch: tuple[Tensor, Tensor]) -> None:
    pairs = square_of(*batch)
    mined = multi_similarity(pairs, epsilon=0.05)
    pos, neg = set(), set()
    for a in range(len(pairs.sim)):
        p, n = sides(pairs, a)
        if p and n:
            pos |= {(a, j) for j, s in p.items() if s - 0.05 < max(n.values())}
            neg |= {(a, j) for j, s in n.items() if s + 0.05 > min(p.values())}
    assert (cells(mined.pos), cells(mined.neg)) == (pos, neg)
    a1, p1, a2, n2 = miners.MultiSimilarityMiner(0.05)(*batch)
    assert (of_indices(a1, p1), of_indices(a2, n2)) == (pos, neg)


def test_hard(batch: tuple[Tensor, Tensor]) -> None:
    pairs = square_of(*batch)
    mined = hard(pairs)
    for a in range(len(pairs.sim)):
        p, n = sides(pairs, a)
        assert mined.pos[a].nonzero().flatten().tolist() == ([min(p, key=p.get)] if p else [])
        assert mined.neg[a].nonzero().flatten().tolist() == [max(n, key=n.get)]
    anchors, positives, negatives = miners.BatchHardMiner()(*batch)
    assert cells(mined.pos) == of_indices(anchors, positives)
    assert cells(mined.neg[anchors]) == of_indices(torch.arange(len(anchors)), negatives)


@pytest.mark.parametrize("margin", [0.2, 0.6])
def test_semi_hard(batch: tuple[Tensor, Tensor], margin: float) -> None:
    pairs = square_of(*batch)
    mined = semi_hard(pairs, margin=margin)
    apart = distance(pairs.sim)
    neg = set()
    for a in range(len(pairs.sim)):
        p, n = sides(pairs, a)
        if p:
            hardest = max(float(apart[a, j]) for j in p)
            neg |= {(a, j) for j in n if hardest < float(apart[a, j]) <= hardest + margin}
    assert cells(mined.neg) == neg
    assert torch.equal(mined.pos, pairs.pos)
    pml = miners.BatchEasyHardMiner(pos_strategy="hard", neg_strategy="semihard")
    anchors, _, _, nearest = pml(*batch)
    inside = {(a, n) for a, n in of_indices(anchors, nearest) if (a, n) in neg}
    assert {a for a, _ in inside} == {a for a, _ in neg}


@pytest.mark.parametrize("kind", ["semi-hard", "hard", "all"])
def test_easy_positive(batch: tuple[Tensor, Tensor], kind: str) -> None:
    pairs = square_of(*batch)
    mined = easy_positive(pairs, negatives=kind)
    pos, neg = set(), set()
    for a in range(len(pairs.sim)):
        p, n = sides(pairs, a)
        easiest = max(p.values(), default=-math.inf)
        pos |= {(a, j) for j, s in p.items() if s == easiest}
        beyond = {j: s for j, s in n.items() if s < easiest or kind != "semi-hard"}
        if beyond:
            neg |= {(a, j) for j in (beyond if kind == "all" else [max(beyond, key=beyond.get)])}
    assert (cells(mined.pos), cells(mined.neg)) == (pos, neg)
    strategy = {"semi-hard": "semihard"}.get(kind, kind)
    a1, p1, a2, n2 = miners.BatchEasyHardMiner("easy", strategy)(*batch)
    assert of_indices(a1, p1) <= pos
    assert of_indices(a2, n2) <= neg
    if kind == "semi-hard":
        complete = {a for a, _ in pos} & {a for a, _ in neg}
        assert of_indices(a2, n2) == {(a, j) for a, j in neg if a in complete}


@pytest.mark.parametrize("angle", [10.0, 25.0, 40.0])
def test_angular(batch: tuple[Tensor, Tensor], angle: float) -> None:
    mined = angular(square_of(*batch), angle=angle)
    anchors, positives, negatives = miners.AngularMiner(angle)(*batch)
    assert cells(mined.pos) == of_indices(anchors, positives)
    assert cells(mined.neg) == of_indices(anchors, negatives)


def test_random_counts() -> None:
    pairs = square_of(*example())
    mined = random(pairs, generator=torch.Generator().manual_seed(0), positives=2, negatives=4)
    assert (mined.pos.sum(dim=1) == 2).all()
    assert (mined.neg.sum(dim=1) == 4).all()
    mined = random(pairs, generator=torch.Generator().manual_seed(0), negatives=999)
    assert torch.equal(mined.neg, pairs.neg)
    mined = random(pairs, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mined.pos, pairs.pos)
    assert torch.equal(mined.neg.sum(dim=1), pairs.pos.sum(dim=1))


def test_random_is_even() -> None:
    pairs = square_of(*example(rows=10, classes=2))
    generator = torch.Generator().manual_seed(0)
    total = sum(random(pairs, generator=generator, negatives=2).neg for _ in range(1000))
    assert isinstance(total, Tensor)
    drawn = total[pairs.neg > 0]
    assert (drawn / 1000 - 0.4).abs().max() < 0.07  # four standard deviations


def frequencies(pairs: Pairs, dim: int, rounds: int = 3000) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    mined = distance_weighted(pairs, dim=dim, generator=generator, negatives=rounds)
    return mined.neg / rounds


def test_distance_weighted_frequencies_are_the_formula() -> None:
    vectors, labels = example(rows=12, classes=3)
    pairs = square_of(vectors, labels)
    found = frequencies(pairs, DIM)
    for a in range(len(labels)):
        weights = {}
        for j in pairs.neg[a].nonzero().flatten().tolist():
            apart = max(float((vectors[a] - vectors[j]).norm()), 0.5)
            q = apart ** (DIM - 2) * (1 - apart**2 / 4) ** ((DIM - 3) / 2)
            weights[j] = 1 / q if apart < 1.4 else 0.0
        total = sum(weights.values())
        for j, weight in weights.items():
            expected = weight / total if total else 1 / len(weights)
            assert found[a, j].item() == pytest.approx(expected, abs=0.04)


def test_distance_weighted_survives_opposite_points_in_512_dimensions() -> None:
    # the far ones have the largest 1 / q of all
    sim = torch.tensor([[1.0, 0.7, 0.2, -0.99999, -1.0], [1.0, -0.5, -0.9, -1.0, -1.0]])
    pos = torch.tensor([[1.0, 0, 0, 0, 0], [1.0, 0, 0, 0, 0]])
    found = frequencies(Pairs(sim, pos, 1 - pos), 512, rounds=400)
    assert found[0].tolist() == [0, 1, 0, 0, 0]
    assert (found[1, 1:] - 0.25).abs().max() < 0.1  # all too far: evenly


def test_distance_weighted_draws_as_often_as_there_are_positives() -> None:
    pairs = square_of(*example())
    mined = distance_weighted(pairs, dim=DIM, generator=torch.Generator().manual_seed(0))
    assert torch.equal(mined.neg.sum(dim=1), pairs.pos.sum(dim=1))
    assert torch.equal(mined.pos, pairs.pos)


def test_hard_keeps_all_ties() -> None:
    sim = torch.tensor([[0.5, 0.2, 0.2, 0.9, 0.9]])
    pos = torch.tensor([[1.0, 1.0, 1.0, 0.0, 0.0]])
    mined = hard(Pairs(sim, pos, 1 - pos))
    assert mined.pos.tolist() == [[0, 1, 1, 0, 0]]
    assert mined.neg.tolist() == [[0, 0, 0, 1, 1]]


def test_easy_positive_wants_a_negative_strictly_beyond() -> None:
    sim = torch.tensor([[0.5, 0.2, 0.5, 0.3, 0.9]])
    pos = torch.tensor([[1.0, 1.0, 0.0, 0.0, 0.0]])
    mined = easy_positive(Pairs(sim, pos, 1 - pos))
    assert mined.pos.tolist() == [[1, 0, 0, 0, 0]]
    assert mined.neg.tolist() == [[0, 0, 0, 1, 0]]
