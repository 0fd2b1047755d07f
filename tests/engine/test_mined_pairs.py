"""Tuples of declared pairs against a slow port of the published loop."""

import numpy as np
import pytest
import torch

from mltool.engine.mining import MiningSettings, Tuples, TupleSampler
from mltool.errors import InputError


class Table:
    """Vectors by row, in place of a teacher's file."""

    def __init__(self, vectors: np.ndarray) -> None:
        self.vectors = vectors

    def read_rows(self, rows: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(self.vectors[rows])


def units(rows: int, seed: int) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, 6)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def published(
    anchors: list[int],
    pool: list[int],
    cluster: list[int],
    student: np.ndarray,
    teacher: np.ndarray,
) -> list[list[int]]:
    """Down the ranking of each anchor: skip its cluster and those that have given a negative."""
    found = []
    for anchor in anchors:
        scores = [float(student[anchor] @ teacher[row]) for row in pool]
        ranked = [pool[place] for place in sorted(range(len(pool)), key=lambda p: -scores[p])]
        used, negatives = [cluster[anchor]], []
        for row in ranked:
            if len(negatives) < 3 and cluster[row] not in used:
                used.append(cluster[row])
                negatives.append(row)
        found.append(negatives)
    return found


@pytest.mark.parametrize("seed", range(8))
def test_tuples_are_those_of_the_published_loop(seed: int) -> None:
    generator = np.random.default_rng(seed)
    cluster = generator.integers(0, 9, 80)
    # few anchors, so that most have several pairs; images in no pair are negatives all the same
    pairs = np.column_stack([generator.integers(0, 10, 40), generator.integers(10, 60, 40)])
    settings = MiningSettings("hard", pool=50, queries=25, negatives=3)
    tuples = Tuples(cluster, settings, seed=seed, pairs=pairs)
    student, teacher = units(80, seed), units(80, seed + 100)
    work = TupleSampler(
        tuples,
        per_batch=5,
        full_tuples=False,
        teacher=Table(teacher),
        symmetric=False,  # type: ignore[arg-type]
    )
    work.begin(2, lambda rows: student[list(rows)])
    anchors, positives, pool = tuples.draw(2)
    assert len(anchors) == 25
    assert len(set(anchors.tolist())) < 25  # anchors repeat
    drawn = list(zip(anchors.tolist(), positives.tolist(), strict=True))
    given = [tuple(pair) for pair in pairs.tolist()]
    assert all(drawn.count(pair) <= given.count(pair) for pair in drawn)  # without replacement
    expected = published(anchors.tolist(), pool.tolist(), cluster.tolist(), student, teacher)
    assert tuples.negatives.tolist() == expected
    assert tuples.anchors.tolist() == anchors.tolist()
    assert tuples.positives.tolist() == positives.tolist()


@pytest.mark.parametrize("whole", [False, True])
def test_an_anchor_that_stands_twice_keeps_both_its_tuples(whole: bool) -> None:
    pairs = np.array([[0, 1], [0, 2], [0, 3], [4, 5]])
    cluster = np.array([0, 0, 0, 0, 1, 1, 2, 2])
    settings = MiningSettings("random", pool=8, queries=4, negatives=2)
    tuples = Tuples(cluster, settings, seed=0, pairs=pairs)
    sampler = TupleSampler(tuples, per_batch=4, full_tuples=whole)
    sampler.begin(1, lambda rows: units(8, 0))
    batch = sampler.batch(1, 0)
    assert len(set(batch)) == len(batch)  # each has an augmentation of its own
    assert len({draw for _, draw in batch}) == len(batch)
    if whole:
        lines = np.array([row for row, _ in batch]).reshape(4, 4)
        assert sorted(map(tuple, lines[:, :2].tolist())) == sorted(map(tuple, pairs.tolist()))
    else:
        numbers = [draw % len(tuples) for _, draw in batch]
        assert [row for row, _ in batch] == tuples.anchors[numbers].tolist()
        assert sorted(tuples.positives[numbers].tolist()) == [1, 2, 3, 5]


def test_no_pair_is_left() -> None:
    settings = MiningSettings("hard", pool=8, queries=4, negatives=2)
    with pytest.raises(InputError, match="no declared pair is left"):
        Tuples(np.array([0, 0, 1]), settings, seed=0, pairs=np.empty((0, 2), np.int64))
