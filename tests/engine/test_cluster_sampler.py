"""Clusters take turns, a batch has images of one, and an epoch is as long as without clusters."""

from collections import Counter

import numpy as np
import pytest

from mltool.engine.cluster_sampler import ClustersInTurn, Phases
from mltool.engine.data import LEARNER
from mltool.engine.samplers import ClassBalanced
from mltool.errors import InputError

LABELS = np.repeat(np.arange(12), 10)
NEVER = Phases()
GENERATOR = np.random.default_rng(0)


def sampler(
    clusters: np.ndarray,
    labels: np.ndarray = LABELS,
    *,
    p: int = 4,
    k: int = 2,
    phases: Phases = NEVER,
    **settings: object,
) -> ClustersInTurn:
    every = ClassBalanced(labels, classes_per_batch=p, images_per_class=k, seed=0)
    return ClustersInTurn(every, labels, clusters, phases=phases, **settings)


def rows_of(of: ClustersInTurn, epoch: int, step: int) -> np.ndarray:
    return np.array([row for row, _ in of.batch(epoch, step)])


def test_one_cluster_gives_the_batches_of_all_images() -> None:
    one = sampler(np.zeros(120, int))
    assert one.steps == one.every.steps == 15
    for epoch in range(3):
        for step in range(15):
            assert one.batch(epoch, step) == one.every.batch(epoch, step)
            assert one.columns(epoch, step)[LEARNER].tolist() == [0] * 8


def test_clusters_take_turns_across_epochs() -> None:
    clusters = GENERATOR.integers(-1, 3, 120)
    clusters[clusters == 1] = 5  # learners 1, 3 and 4 have no images, hence no turn
    of = sampler(clusters)
    turns = []
    for epoch in range(4):
        for step in range(of.steps):
            (learner,) = set(of.columns(epoch, step)[LEARNER].tolist())
            rows = rows_of(of, epoch, step)
            assert set(clusters[rows]) == {learner}
            assert len(rows) == len(of.columns(epoch, step)[LEARNER]) == 8
            assert all(count == 2 for count in Counter(LABELS[rows]).values())
            turns.append(learner)
    assert turns == [(0, 2, 5)[n % 3] for n in range(60)]


def test_small_clusters_are_seen_as_often_as_large_ones() -> None:
    clusters = (np.arange(120) % 10 < 2).astype(int)  # of every class 8 and 2 images
    of = sampler(clusters)
    seen = Counter(row for step in range(of.steps * 8) for row in rows_of(of, 0, step))
    large, small = (np.array([seen[row] for row in np.flatnonzero(clusters == c)]) for c in (0, 1))
    assert small.mean() == pytest.approx(4 * large.mean(), rel=0.1)
    assert large.min() > 0


def test_no_draw_of_an_image_comes_twice() -> None:
    clusters = (np.arange(120) % 10 < 3).astype(int)
    of = sampler(clusters)
    drawn = [item for epoch in range(6) for s in range(of.steps) for item in of.batch(epoch, s)]
    assert len(set(drawn)) == len(drawn)


def test_phases() -> None:
    clusters = np.arange(120) % 2
    clusters[7] = -1
    of = sampler(clusters, phases=Phases(full_from=1, merge_from=2))
    assert of.columns(0, 1)[LEARNER].tolist() == [1] * 8
    assert of.columns(1, 0)[LEARNER].tolist() == [-1] * 8
    assert set(clusters[rows_of(of, 1, 0)]) == {1}  # the 16th step
    assert of.columns(2, 0)[LEARNER].tolist() == [-1] * 8
    assert of.batch(2, 3) == of.every.batch(2, 3)
    apart = {row for epoch in (0, 1) for s in range(15) for row in rows_of(of, epoch, s)}
    merged = {row for epoch in range(2, 9) for s in range(15) for row in rows_of(of, epoch, s)}
    assert 7 not in apart
    assert 7 in merged
    assert not any(Phases().is_merged(e) for e in range(9))
    assert Phases(merge_from=0).is_merged(0)
    assert not Phases(merge_from=0).has_parts(0)


def test_few_classes_give_more_images_each() -> None:
    clusters = np.where(LABELS < 3, 1, 0)  # 9 classes, and 3
    of = sampler(clusters, p=6, k=3)
    assert len(of.batch(0, 0)) == 18
    assert Counter(LABELS[rows_of(of, 0, 1)]) == {0: 6, 1: 6, 2: 6}
    uneven = sampler(clusters, p=5, k=2, processes=2)
    assert len(uneven.batch(0, 1)) == 6  # of at most 10 a number that divides by 3 and by 2


def test_small_classes() -> None:
    clusters = np.zeros(120, int)
    clusters[:4] = 1  # four of one class, and then one more of each of others
    clusters[[10, 20, 21]] = 1
    of = sampler(clusters, k=3)
    assert of.small_classes == 2
    assert {0, 1, 2} == set(LABELS[rows_of(of, 0, 1)])
    with pytest.raises(InputError, match="1 classes in cluster 1 have enough images"):
        sampler(clusters, k=3, small_classes="skip")
    with pytest.raises(InputError, match="2 classes have fewer than 3 images in cluster 1"):
        sampler(clusters, k=3, small_classes="error")


def test_a_cluster_of_one_class_is_refused() -> None:
    with pytest.raises(InputError, match=r"cluster 1 .*--min-classes"):
        sampler((LABELS == 3).astype(int))
