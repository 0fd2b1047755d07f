"""Batches are a pure function of (seed, epoch, step) and keep the promises of P x K."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mltool.engine.samplers import ClassBalanced, Neighborhoods, Shuffled, Views, choose_sizes
from mltool.errors import InputError, UsageError


def labels_of(sizes: list[int]) -> np.ndarray:
    """Labels of classes with these sizes, shuffled."""
    labels = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(0).permutation(labels)


def all_batches(sampler: ClassBalanced, epochs: int) -> list[list[tuple[int, int]]]:
    return [sampler.batch(e, s) for e in range(epochs) for s in range(sampler.steps)]


@settings(deadline=None, max_examples=60)
@given(
    counts=st.lists(st.integers(1, 9), min_size=2, max_size=8),
    p=st.integers(1, 8),
    k=st.integers(1, 6),
    seed=st.integers(0, 2**40),
)
def test_promises_of_a_batch(counts: list[int], p: int, k: int, seed: int) -> None:
    labels = labels_of(counts)
    if p > len(counts):
        with pytest.raises(UsageError, match="classes"):
            ClassBalanced(labels, classes_per_batch=p, images_per_class=k, seed=seed)
        return
    sampler = ClassBalanced(labels, classes_per_batch=p, images_per_class=k, seed=seed)
    assert sampler.steps == max(1, len(labels) // (p * k))
    batches = all_batches(sampler, 12)
    for batch in batches:
        rows = [row for row, _ in batch]
        per_class = Counter(labels[rows].tolist())
        assert set(per_class.values()) == {k}  # exactly K of each, so no class stands twice
        assert len(per_class) == p
        for label, found in Counter((int(labels[row]), row) for row in rows).items():
            assert found <= -(-k // counts[label[0]])  # 1 unless the class is smaller than K
    drawn = Counter(item for batch in batches for item in batch)
    assert max(drawn.values()) == 1  # never an image twice with the same draw


def test_batches_depend_on_nothing_but_seed_epoch_and_step() -> None:
    labels = labels_of([20] * 12)

    def make(seed: int) -> ClassBalanced:
        return ClassBalanced(labels, classes_per_batch=4, images_per_class=5, seed=seed)

    forward = {(e, s): make(3).batch(e, s) for e in range(4) for s in range(12)}
    sampler = make(3)
    for e, s in reversed(forward):
        assert sampler.batch(e, s) == forward[e, s]
    assert make(4).batch(0, 0) != forward[0, 0]
    assert len({str(batch) for batch in forward.values()}) == len(forward)


def test_over_many_epochs_classes_and_images_come_about_equally_often() -> None:
    counts = [7, 7, 8, 10, 4, 4, 4]  # 7 classes by 3, 7 and 10 images by 4: with remainders
    labels = labels_of(counts)
    sampler = ClassBalanced(labels, classes_per_batch=3, images_per_class=4, seed=1)
    drawn = Counter(row for batch in all_batches(sampler, 1200) for row, _ in batch)
    per_class = Counter()
    for row, times in drawn.items():
        per_class[int(labels[row])] += times
    expected = 1200 * sampler.steps * 3 * 4 / 7
    assert all(abs(per_class[c] / expected - 1) < 0.05 for c in range(7))
    for row, times in drawn.items():
        own = expected / counts[labels[row]]
        assert abs(times / own - 1) < 0.15
    assert len(drawn) == len(labels)


def test_within_a_deal_every_image_comes_before_any_comes_again() -> None:
    labels = labels_of([12, 12])
    sampler = ClassBalanced(labels, classes_per_batch=2, images_per_class=3, seed=0)
    for epoch in range(5):
        rows = [row for step in range(4) for row, _ in sampler.batch(epoch, step)]
        assert sorted(rows) == list(range(24))


def test_classes_are_dealt_independently_of_the_images() -> None:
    # numpy takes the seeds [s, v] and [s, v, 0] for the same; 6 classes of 6 images would agree
    labels = np.repeat(np.arange(6), 6)
    sampler = ClassBalanced(labels, classes_per_batch=6, images_per_class=6, seed=0)
    same = 0
    for epoch in range(50):
        rows = np.array([row for row, _ in sampler.batch(epoch, 0)]).reshape(6, 6)
        images = [r % 6 for r in rows[rows[:, 0] // 6 == 0][0]]
        same += images == (rows[:, 0] // 6).tolist()
    assert same < 3


def test_small_classes() -> None:
    labels = labels_of([2, 5, 6, 3])
    kwargs = {"classes_per_batch": 2, "images_per_class": 4, "seed": 0}
    with pytest.raises(InputError, match="2 classes have fewer than 4"):
        ClassBalanced(labels, small_classes="error", **kwargs)
    skipping = ClassBalanced(labels, small_classes="skip", **kwargs)
    seen = {int(labels[row]) for batch in all_batches(skipping, 20) for row, _ in batch}
    assert seen == {1, 2}
    assert skipping.images == 11
    assert [len(m) for m in skipping.left_out] == [2, 3]
    resampling = ClassBalanced(labels, small_classes="resample", **kwargs)
    seen = {int(labels[row]) for batch in all_batches(resampling, 20) for row, _ in batch}
    assert seen == {0, 1, 2, 3}
    with pytest.raises(UsageError, match="2 usable"):
        ClassBalanced(labels, classes_per_batch=3, images_per_class=4, seed=0, small_classes="skip")


def test_a_small_class_repeats_its_images_evenly() -> None:
    labels = np.array([0, 1, 0, 1, 0, 1])
    sampler = ClassBalanced(labels, classes_per_batch=1, images_per_class=7, seed=0)
    for epoch in range(10):
        assert sorted(Counter(r for r, _ in sampler.batch(epoch, 0)).values()) == [2, 2, 3]


def test_the_unlabelled_are_ignored() -> None:
    labels = np.array([-1, 0, 1, -1, 0, 1, -1])
    sampler = ClassBalanced(labels, classes_per_batch=2, images_per_class=2, seed=0)
    assert sampler.images == 4
    assert {r for b in all_batches(sampler, 5) for r, _ in b} == {1, 2, 4, 5}
    for few in ([-1, -1], [], [0, 0, -1]):
        with pytest.raises(InputError, match="needs two"):
            ClassBalanced(np.array(few, int), classes_per_batch=1, images_per_class=1, seed=0)


@pytest.mark.parametrize(("p", "k"), [(0, 4), (4, 0), (-1, 4), (4, -2)])
def test_empty_batches_are_refused(p: int, k: int) -> None:
    with pytest.raises(UsageError, match="at least one"):
        ClassBalanced(labels_of([5] * 5), classes_per_batch=p, images_per_class=k, seed=0)


@pytest.mark.parametrize(
    ("classes", "batch", "p", "k", "expected"),
    [
        (100, 128, None, None, (32, 4)),
        (5, 120, None, None, (5, 24)),
        (100, 128, 16, None, (16, 8)),
        (100, 128, None, 8, (16, 8)),
        (3, 128, None, 8, (3, 8)),
        (100, 128, 7, 9, (7, 9)),
        (1, 8, None, None, (1, 8)),
        (10, 1, None, None, (2, 1)),  # without negatives nothing is learned
        (10, 4, 100, None, (100, 1)),
        (10, 8, 0, None, (0, 8)),  # refused by the sampler, not taken for "not given"
        (10, 8, None, 0, (2, 0)),
    ],
)
def test_sizes(classes, batch, p, k, expected) -> None:
    found = choose_sizes(classes, batch_size=batch, classes_per_batch=p, images_per_class=k)
    assert found == expected


def test_sizes_divide_among_processes() -> None:
    p, k = choose_sizes(
        98, batch_size=512, classes_per_batch=None, images_per_class=None, processes=4
    )
    assert p * k % 4 == 0
    assert p > 90
    with pytest.raises(UsageError, match="98 x 5"):
        choose_sizes(98, batch_size=512, classes_per_batch=98, images_per_class=5, processes=4)


def test_shuffled_batches_take_every_image_once_an_epoch() -> None:
    sampler = Shuffled(23, size=5, seed=4)
    assert (sampler.steps, sampler.size) == (4, 5)
    left_out = set()
    for epoch in range(6):
        items = [item for step in range(4) for item in sampler.batch(epoch, step)]
        assert len({row for row, _ in items}) == 20
        assert {draw for _, draw in items} == {epoch}
        left_out |= set(range(23)) - {row for row, _ in items}
    assert len(left_out) > 3  # not the same ones every time
    assert Shuffled(23, size=5, seed=5).batch(0, 0) != sampler.batch(0, 0)


def test_shuffled_lists_smaller_than_a_batch() -> None:
    sampler = Shuffled(7, size=32, seed=0, processes=2)
    assert (sampler.steps, sampler.size) == (1, 6)
    with pytest.raises(InputError, match="1 images"):
        Shuffled(1, size=32, seed=0, processes=2)


def test_views_are_further_draws_of_the_same_images() -> None:
    plain = ClassBalanced(labels_of([6] * 4), classes_per_batch=2, images_per_class=3, seed=0)
    sampler = Views(plain, 3)
    assert (sampler.steps, sampler.size) == (plain.steps, 18)
    for epoch in range(3):
        for step in range(sampler.steps):
            rows = [row for row, _ in plain.batch(epoch, step)]
            assert [row for row, _ in sampler.batch(epoch, step)] == rows * 3
    items = [item for e in range(5) for s in range(sampler.steps) for item in sampler.batch(e, s)]
    assert len(set(items)) == len(items)


def test_neighbourhoods_stand_in_one_batch() -> None:
    nearest = (np.arange(30)[:, None] + [1, 2]) % 30
    calls: list[int] = []

    def find() -> np.ndarray:
        calls.append(1)
        return nearest

    sampler = Neighborhoods(30, find, each=3, size=13, seed=1)
    assert (sampler.steps, sampler.size, calls) == (2, 12, [])
    for epoch in range(2):
        sampler.begin(epoch, lambda rows: np.empty(0))
    assert calls == [1]
    queries = []
    for number in range(14):  # 7 batches deal all images once
        rows = np.array([row for row, _ in sampler.batch(*divmod(number, 2))]).reshape(4, 3)
        queries += rows[:, 0].tolist()
        assert (rows[:, 1:] == nearest[rows[:, 0]]).all()
    assert len(set(queries[:28])) == 28
    items = [item for e in range(9) for s in range(2) for item in sampler.batch(e, s)]
    assert len(set(items)) == len(items)  # never an image twice with the same draw
    with pytest.raises(UsageError, match="--neighbors"):
        Neighborhoods(30, find, each=3, size=5, seed=1, processes=2)
    with pytest.raises(UsageError, match="30 images do not have 30 others"):
        Neighborhoods(30, find, each=31, size=40, seed=1)
    assert calls == [1]


@pytest.mark.parametrize("views", [2, 3, 4, 5])
def test_every_place_in_a_neighbourhood_sees_all_views_in_turn(views: int) -> None:
    nearest = (np.arange(40)[:, None] + [1, 2, 3]) % 40
    sampler = Neighborhoods(40, lambda: nearest, each=4, size=20, seed=0)
    sampler.begin(0, lambda rows: np.empty(0))
    draws = np.array([[d for _, d in sampler.batch(0, n)] for n in range(views)])
    assert (np.sort(draws % views, axis=0) == np.arange(views)[:, None]).all()
