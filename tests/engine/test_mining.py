"""Mined tuples against brute force, and the promises that hold for any data."""

import logging
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.engine import mining
from mltool.engine.mining import (
    MiningSettings,
    Tuples,
    TupleSampler,
    choose_tuples_per_batch,
    hardest_negatives,
    random_negatives,
)
from mltool.errors import InputError, UsageError


def units(rows: int, dim: int = 8, seed: int = 0) -> np.ndarray:
    found = np.random.default_rng(seed).normal(size=(rows, dim)).astype(np.float32)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def walked(
    anchor: np.ndarray, own: int, pool: np.ndarray, labels: np.ndarray, count: int
) -> list[int]:
    """The published walk down the ranking of one anchor."""
    chosen: list[int] = []
    for place in np.argsort(-(pool @ anchor), kind="stable").tolist():
        used = {own, *(int(labels[p]) for p in chosen)}
        if len(chosen) < count and int(labels[place]) not in used:
            chosen.append(place)
    return chosen + [-1] * (count - len(chosen))


@settings(deadline=None, max_examples=40)
@given(
    images=st.integers(1, 200),
    classes=st.integers(1, 12),
    count=st.integers(1, 8),
    seed=st.integers(0, 10**6),
)
def test_hard_negatives_are_those_of_the_walk(
    images: int, classes: int, count: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, classes, images)
    pool, anchors = units(images, seed=seed), units(20, seed=seed + 1)
    own = generator.integers(0, classes + 2, 20)  # some of no class in the pool
    found = hardest_negatives(anchors, own, pool, labels, count=count)
    expected = [
        walked(anchor, int(mine), pool, labels, count)
        for anchor, mine in zip(anchors, own, strict=True)
    ]
    assert found.tolist() == expected


def test_each_negative_is_the_best_of_its_class_and_none_is_skipped() -> None:
    labels = np.random.default_rng(1).integers(0, 9, 150)
    pool, anchors, own = units(150), units(30, seed=1), np.arange(30) % 9
    found = hardest_negatives(anchors, own, pool, labels, count=4)
    sim = anchors @ pool.T
    for row, places in enumerate(found):
        assert len(set(labels[places])) == 4
        assert own[row] not in labels[places]
        for place in places:
            assert sim[row, place] == sim[row, labels == labels[place]].max()
        others = ~np.isin(labels, [own[row], *labels[places]])
        assert sim[row, others].max() <= sim[row, places].min()


def test_blocks_of_anchors_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = np.arange(60) % 7
    arguments = units(40, seed=1), np.arange(40) % 7, units(60), labels
    expected = hardest_negatives(*arguments, count=3)
    monkeypatch.setattr(mining, "ANCHORS", 7)
    assert (hardest_negatives(*arguments, count=3) == expected).all()


def test_equal_scores_go_by_class_and_place() -> None:
    pool = np.ones((6, 1), np.float32)
    found = hardest_negatives(pool[:1], np.array([0]), pool, np.array([2, 1, 2, 0, 1, 3]), count=3)
    assert found.tolist() == [[1, 0, 5]]


def test_random_negatives_are_of_distinct_foreign_classes() -> None:
    labels = np.repeat(np.arange(6), [1, 2, 3, 4, 50, 5])
    own = np.repeat(np.arange(6), 200)
    found = random_negatives(own, labels, count=3, generator=np.random.default_rng(0))
    classes = labels[found]
    assert (classes != own[:, None]).all()
    assert all(len(set(row)) == 3 for row in classes.tolist())
    # classes are equally likely, whatever their size, and so are the images of one
    counts = np.bincount(classes.ravel(), minlength=6)
    assert counts.min() > 0.85 * counts.max()
    images = np.bincount(found.ravel(), minlength=len(labels))
    assert images[labels == 3].min() > 0.75 * images[labels == 3].max()


def test_too_few_foreign_classes_leave_places_empty() -> None:
    labels = np.array([0, 0, 1, 1])
    for found in (
        hardest_negatives(units(2), np.array([0, 1]), units(4), labels, count=3),
        random_negatives(np.array([0, 1]), labels, count=3, generator=np.random.default_rng(0)),
    ):
        assert (found[:, 1:] == -1).all()
        assert labels[found[:, 0]].tolist() == [1, 0]
    empty = hardest_negatives(units(2), np.array([0, 1]), units(0), np.empty(0, int), count=3)
    assert (empty == -1).all()


def tuples(labels: np.ndarray, *, seed: int = 0, pairs: np.ndarray | None = None, **changes):
    given = {"kind": "hard", "pool": 1000, "queries": 1000, "negatives": 2} | changes
    return Tuples(labels, MiningSettings(**given), seed=seed, pairs=pairs)


def test_anchors_positives_and_pool_are_drawn_from_seed_and_epoch() -> None:
    labels = np.array([0, 0, 1, 1, 1, 2, -1, -1])
    drawn = tuples(labels, queries=3, pool=4)
    anchors, positives, pool = drawn.draw(5)
    assert all(
        (a == b).all() for a, b in zip(drawn.draw(5), (anchors, positives, pool), strict=True)
    )
    assert len(set(anchors.tolist())) == 3
    assert (labels[anchors] == labels[positives]).all()
    assert (anchors != positives).all()
    assert set(anchors.tolist()) <= {0, 1, 2, 3, 4}  # 5 is alone in its class
    assert len(set(pool.tolist())) == 4
    assert (labels[pool] >= 0).all()
    everything = [np.concatenate(tuples(labels, seed=s).draw(e)).tolist() for s, e in SEEDS]
    assert len(set(map(tuple, everything))) == len(SEEDS)


SEEDS = [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_every_other_image_of_a_class_can_be_the_positive() -> None:
    labels = np.array([0, 1, 0, 1, 0, 0])
    drawn = tuples(labels)
    found = {(a, p) for e in range(200) for a, p in zip(*drawn.draw(e)[:2], strict=True)}
    same = [(a, p) for a in range(6) for p in range(6) if a != p and labels[a] == labels[p]]
    assert found == set(same)


def test_positives_from_given_pairs_alone() -> None:
    labels = np.zeros(6, int)
    pairs = np.array([[0, 1], [0, 2], [4, 5]])
    anchors, positives, _ = tuples(labels, pairs=pairs).draw(0)
    assert sorted(np.column_stack([anchors, positives]).tolist()) == pairs.tolist()


def test_nobody_has_a_positive() -> None:
    with pytest.raises(InputError, match="two images"):
        tuples(np.array([0, 1, 2, -1, -1]))


def sampler(
    found: Tuples, *, size: int = 10, full_tuples: bool = True, processes: int = 1, **settings
) -> TupleSampler:
    count = choose_tuples_per_batch(found, size=size, full_tuples=full_tuples, processes=processes)
    return TupleSampler(found, per_batch=count, full_tuples=full_tuples, **settings)


class Table:
    """Vectors by row, in place of a teacher's file; counts what is asked for."""

    def __init__(self, vectors: np.ndarray, metric: str = "cosine") -> None:
        self.vectors, self.metric, self.asked = vectors, metric, []

    def read_rows(self, rows: np.ndarray) -> torch.Tensor:
        self.asked.append(rows)
        return torch.from_numpy(self.vectors[rows])


def mined(
    kind: str, *, teacher: Table | None, symmetric: bool, student: np.ndarray, **changes
) -> tuple[Tuples, list]:
    labels = np.arange(40) % 8
    found, calls = tuples(labels, kind=kind, **changes), []

    def embed(rows: Sequence[int]) -> np.ndarray:
        calls.append(rows)
        return student[list(rows)]

    sampler(found, teacher=teacher, symmetric=symmetric).begin(3, embed)  # type: ignore[arg-type]
    return found, calls


@pytest.mark.parametrize(
    ("has_teacher", "symmetric", "sides"),
    [
        (True, False, "student teacher"),
        (True, True, "teacher teacher"),
        (False, True, "student student"),
    ],
)
def test_who_ranks_the_candidates(has_teacher: bool, symmetric: bool, sides: str) -> None:
    student, teacher = units(40, seed=1), units(40, seed=2)
    table = Table(teacher) if has_teacher else None
    found, calls = mined("hard", teacher=table, symmetric=symmetric, student=5 * student)
    vectors = {"student": student, "teacher": teacher}
    left, right = (vectors[name] for name in sides.split())
    anchors, positives, pool = found.draw(3)
    labels = found.labels
    expected = pool[
        hardest_negatives(left[anchors], labels[anchors], right[pool], labels[pool], count=2)
    ]
    assert found.negatives.tolist() == expected.tolist()
    assert found.anchors.tolist() == anchors.tolist()
    assert found.positives.tolist() == positives.tolist()
    assert len(calls) == sides.count("student")


def test_a_euclidean_teacher_ranks_by_distance() -> None:
    vectors = units(40, seed=2) * np.random.default_rng(0).uniform(0.1, 9, (40, 1)).astype("f4")
    found, _ = mined(
        "hard", teacher=Table(vectors, "euclidean"), symmetric=True, student=units(40), negatives=1
    )
    anchors, _, pool = found.draw(3)
    for anchor, chosen in zip(anchors, found.negatives[:, 0].tolist(), strict=True):
        foreign = pool[found.labels[pool] != found.labels[anchor]]
        gaps = np.linalg.norm(vectors[foreign] - vectors[anchor], axis=1)
        assert chosen == foreign[gaps.argmin()]


def test_random_mining_asks_nobody_and_has_the_same_anchors() -> None:
    hard, _ = mined("hard", teacher=Table(units(40)), symmetric=False, student=units(40))
    found, calls = mined("random", teacher=Table(units(40)), symmetric=False, student=units(40))
    assert calls == []
    assert found.anchors.tolist() == hard.anchors.tolist()
    assert found.positives.tolist() == hard.positives.tolist()
    assert found.negatives.tolist() != hard.negatives.tolist()


def test_tuples_of_the_epoch_are_not_mined_twice() -> None:
    found, _ = mined("hard", teacher=None, symmetric=True, student=units(40))
    again = tuples(found.labels)
    other = sampler(again)
    other.load_state(sampler(found).state())

    def embed(rows: Sequence[int]) -> np.ndarray:
        raise AssertionError("mined again")

    other.begin(3, embed)
    assert again.negatives.tolist() == found.negatives.tolist()


def test_too_few_classes_are_told_once(caplog: pytest.LogCaptureFixture) -> None:
    work = sampler(tuples(np.arange(40) % 2))
    with caplog.at_level(logging.WARNING):
        for epoch in range(3):
            work.begin(epoch, lambda rows: units(40)[list(rows)])
    assert [r.getMessage() for r in caplog.records] == [
        "40 of 40 anchors have fewer than 2 foreign classes in the pool of 40 images"
    ]


def test_batches_of_anchors_tell_their_tuple() -> None:
    found, _ = mined("hard", teacher=None, symmetric=True, student=units(40), queries=21)
    batches = sampler(found, size=5, full_tuples=False)
    assert (batches.steps, batches.size) == (4, 5)
    for step in range(4):
        others = batches.columns(3, step)["tuple"]
        for (row, draw), positive, *negatives in zip(
            batches.batch(3, step), *others.T.tolist(), strict=True
        ):
            assert draw // 21 == 3
            assert found.anchors[draw % 21] == row
            assert found.positives[draw % 21] == positive
            assert found.negatives[draw % 21].tolist() == negatives


def test_whole_tuples_stand_one_after_the_other() -> None:
    found, _ = mined("hard", teacher=None, symmetric=True, student=units(40), queries=21)
    found.negatives[4, 1] = -1
    batches = sampler(found, size=17, processes=2)
    assert (batches.per_batch, batches.size, batches.steps) == (4, 16, 5)
    assert batches.columns(3, 0) == {}
    rows = np.array([row for step in range(5) for row, _ in batches.batch(3, step)]).reshape(-1, 4)
    assert rows[:, 0].tolist() == found.anchors[:20].tolist()
    assert rows[:, 1].tolist() == found.positives[:20].tolist()
    assert rows[4].tolist() == [*rows[4, :3], rows[4, 0]]  # none: the anchor once more
    items = [item for e in (3, 4) for s in range(5) for item in batches.batch(e, s)]
    assert len({draw for _, draw in items}) == len(items)


def test_sizes_of_batches() -> None:
    found = tuples(np.arange(40) % 8, queries=6)
    for size, whole, processes, expected in (
        (1, True, 1, 1),
        (1, False, 2, 2),
        (7, False, 2, 6),
        (100, False, 4, 4),
        (100, True, 1, 6),
    ):
        batches = sampler(found, size=size, full_tuples=whole, processes=processes)
        assert batches.per_batch == expected
    with pytest.raises(UsageError, match="6 tuples"):
        sampler(found, size=8, full_tuples=False, processes=8)


def test_tuples_of_another_shape_are_refused() -> None:
    saved = sampler(tuples(np.arange(40) % 8, queries=6)).state()
    with pytest.raises(ValueError, match="shape"):
        sampler(tuples(np.arange(40) % 8, queries=5)).load_state(saved)
