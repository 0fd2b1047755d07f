"""Batches: the same whatever loads them, and what happens to images and loaders that fail."""

import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from PIL import Image

from mltool import components
from mltool.engine import data, loading
from mltool.engine.data import Batch, Images
from mltool.engine.loading import load
from mltool.errors import InputError, ResourceError
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.models.spec import ModelSpec
from mltool.processors import usable_cores
from mltool.transforms import center_crop, resize_shorter, to_tensor

SPEC = ModelSpec("pixels", 3, "flatten", "none", 3 * 24 * 24, resize=28, crop=24)


@pytest.fixture(autouse=True)
def impatient(monkeypatch) -> None:
    """Torch waits so long for a process that does not end before it ends it."""
    monkeypatch.setattr(torch.utils.data._utils, "MP_STATUS_CHECK_INTERVAL", 0.3)


def listed(paths: list[Path]) -> Manifest:
    return Manifest(
        names=np.array([path.name.encode() for path in paths]),
        paths=StringArray.from_texts([str(path) for path in paths]),
        labels=np.arange(len(paths)),
        label_names=tuple(str(n) for n in range(len(paths))),
        columns={},
        root=str(paths[0].parent),
    )


def images(manifest: Manifest, augment: str = "crop", **settings) -> Images:
    augmentation = components.load("augmentations", augment, size=SPEC.crop)
    return Images(manifest, SPEC, augmentation, **{"seed": 0} | settings)


@pytest.fixture
def photos(tmp_path: Path) -> Manifest:
    generator = np.random.default_rng(0)
    paths = []
    for number in range(9):
        shape = (int(generator.integers(20, 60)), int(generator.integers(20, 60)), 3)
        pixels = generator.integers(0, 256, shape, dtype=np.uint8)
        paths.append(tmp_path / f"{number}.png")
        Image.fromarray(pixels).save(paths[-1])
    return listed(paths)


BATCHES = [[(0, 0), (3, 0)], [(8, 1), (3, 1), (0, 7)], [(5, 0)], [(1, 2), (2, 2)]] * 3


def same(left: Batch, right: Batch) -> bool:
    return (
        torch.equal(left.inputs, right.inputs)
        and torch.equal(left.labels, right.labels)
        and torch.equal(left.rows, right.rows)
        and left.failures == right.failures
    )


@pytest.mark.parametrize("cached", [False, True])
def test_any_number_of_workers_gives_the_same_batches(photos: Manifest, cached: bool) -> None:
    expected = list(load(images(photos), BATCHES, workers=0))
    assert [batch.rows.tolist() for batch in expected[:3]] == [[0, 3], [8, 3, 0], [5]]
    assert expected[0].inputs.shape == (2, 3, 24, 24)
    assert expected[0].inputs.dtype == torch.uint8
    for workers in (0, 1, 3):
        found = list(load(images(photos, cache=cached), iter(BATCHES), workers=workers))
        assert len(found) == len(expected)
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_labels_and_rows_travel_with_the_images(photos: Manifest) -> None:
    batch = next(
        load(images(photos.take(np.array([4, 7])), "center"), [[(1, 0), (0, 0)]], workers=0)
    )
    assert batch.labels.tolist() == [7, 4]
    assert batch.rows.tolist() == [1, 0]


def test_without_augmentation_it_is_resize_and_centre_crop(photos: Manifest) -> None:
    [batch] = load(images(photos, "center"), [[(r, 5) for r in range(9)]], workers=0)
    for row in range(9):
        image = to_tensor(np.array(Image.open(photos.paths[row])))
        assert torch.equal(batch.inputs[row], center_crop(resize_shorter(image, 28), 24))


def test_augmentation_is_a_function_of_seed_name_and_draw(photos: Manifest) -> None:
    def view(of: Manifest, row: int, draw: int, seed: int = 0) -> torch.Tensor:
        torch.rand(3)  # the global generator has no say
        [batch] = load(images(of, seed=seed), [[(row, draw)]], workers=0)
        return batch.inputs[0]

    first = view(photos, 3, 0)
    assert torch.equal(first, view(photos, 3, 0))
    assert not torch.equal(first, view(photos, 3, 1))
    assert not torch.equal(first, view(photos, 3, 0, seed=1))
    other = photos.take(np.array([8, 3]))  # another list, another row: the name decides
    assert torch.equal(first, view(other, 1, 0))
    seeds = {
        data._seed(s, name, draw, view)
        for s in range(3)
        for name in (b"1", b"11", b"/1 1")
        for draw in (1, 11)
        for view in (0, 1, 11)
    }
    assert len(seeds) == 54
    assert all(0 <= seed < 2**63 for seed in seeds)


@pytest.mark.parametrize("room", [1.0, 0.3, 0.0])
def test_the_cache_changes_no_pixel(photos: Manifest, room: float) -> None:
    expected = list(load(images(photos), BATCHES, workers=0))
    cached = images(photos, cache=True)
    cached.cache.capacity = int(cached.cache.capacity * room)
    for _ in range(2):  # filling, then filled
        found = list(load(cached, BATCHES, workers=0))
        assert all(same(a, b) for a, b in zip(found, expected, strict=True))


def test_the_cache_spares_the_files(photos: Manifest) -> None:
    cached = images(photos, cache=True)
    batches = [[(row, 0) for row in range(9)]]
    [before] = load(cached, batches, workers=1)  # filled by another process
    for path in photos.paths:
        os.unlink(path)
    [after] = load(cached, batches, workers=0)
    assert same(before, after)


def spoil(photos: Manifest) -> None:
    Path(photos.paths[2]).write_bytes(b"no image")
    os.truncate(photos.paths[5], 60)
    os.unlink(photos.paths[7])


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_is_named_in_one_line(photos: Manifest, workers: int) -> None:
    spoil(photos)
    for row in (2, 5, 7):
        with pytest.raises(InputError, match=rf"{row}\.png") as caught:
            list(load(images(photos), [[(0, 0)], [(1, 0), (row, 0)]], workers=workers))
        assert "\n" not in str(caught.value)
        assert "Traceback" not in str(caught.value)


@pytest.mark.parametrize("workers", [0, 2])
def test_skipping_leaves_the_unreadable_out(photos: Manifest, workers: int) -> None:
    spoil(photos)
    batches = [[(r, 0) for r in range(4)], [(5, 0), (7, 0)], [(r, 0) for r in range(4, 9)]]
    first, second, third = load(images(photos, skip_bad=True), batches, workers=workers)
    assert first.rows.tolist() == first.labels.tolist() == [0, 1, 3]
    assert len(second.rows) == len(second.inputs) == 0
    assert third.rows.tolist() == [4, 6, 8]
    assert [row for row, _ in third.failures] == [5, 7]
    assert all("\n" not in reason for _, reason in third.failures)
    assert [row for row, _ in second.failures] == [5, 7]


class Faulty(Images):
    """Loaders that misbehave at row 2."""

    def prepare(self, row: int) -> torch.Tensor:
        if row == 2:
            self.misbehave()
        return super().prepare(row)

    def misbehave(self) -> None:
        raise NotImplementedError


def faulty(kind: type[Faulty], manifest: Manifest) -> Faulty:
    return kind(manifest, SPEC, components.load("augmentations", "center", size=24), seed=0)


class Killed(Faulty):
    def misbehave(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


class Stalled(Faulty):
    def misbehave(self) -> None:
        time.sleep(1000)


class Buggy(Faulty):
    def misbehave(self) -> None:
        raise RuntimeError("a bug in an augmentation")


def test_a_dying_loader_is_a_resource_error(photos: Manifest) -> None:
    with pytest.raises(ResourceError, match="fewer --workers") as caught:
        list(load(faulty(Killed, photos), [[(r, 0)] for r in range(9)], workers=2))
    assert "\n" not in str(caught.value)


def test_a_loader_that_dies_while_the_parent_computes(photos: Manifest) -> None:
    def compute() -> None:
        for _ in load(faulty(Killed, photos), [[(r, 0)] for r in range(9)], workers=1):
            for _ in range(500):  # torch's word of the death comes here, not in the loading
                time.sleep(0.01)

    with pytest.raises(ResourceError, match="fewer --workers"), loading.report_dead_loaders():
        compute()


def test_a_stalled_loader_is_a_resource_error(photos: Manifest) -> None:
    start = time.monotonic()
    with pytest.raises(ResourceError, match="timed out"):
        list(load(faulty(Stalled, photos), [[(2, 0)]], workers=1, stall_timeout=0.5))
    assert time.monotonic() - start < 20  # the stalled process is ended, not waited for


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), EOFError()])
def test_a_batch_torn_by_a_death_is_a_resource_error(error: Exception) -> None:
    with (
        pytest.raises(ResourceError, match="a loading process died"),
        loading.report_dead_loaders(),
    ):
        raise error


@pytest.mark.parametrize("workers", [0, 1])
def test_a_bug_in_a_loader_stays_a_bug(photos: Manifest, workers: int) -> None:
    with pytest.raises(RuntimeError, match="a bug in an augmentation"):
        list(load(faulty(Buggy, photos), [[(2, 0)]], workers=workers))


def test_loaders_leave_signals_to_the_parent() -> None:
    manifest = tiny_runs.manifest()
    dataset = tiny_runs.images(manifest, tiny_runs.model())
    listing = Path(f"/proc/self/task/{os.getpid()}/children")
    before = listing.read_text().split()
    stream = load(dataset, [[(r % 80, 0)] for r in range(200)], workers=2)
    next(stream)
    children = set(listing.read_text().split()).difference(before)
    assert len(children) == 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGTERM):
        for child in children:
            signal_from_elsewhere(int(child), number)
    assert sum(len(batch.rows) for batch in stream) == 199


def test_a_loader_whose_parent_is_gone_ends() -> None:
    """Even when it died before torch's own look-out began."""

    def orphan() -> None:
        loading._exit_with_parent(2**22 + 1, 0)  # no process has this number
        time.sleep(30)
        raise AssertionError

    assert tiny_runs.Child(orphan).wait() == (0, "")


def signal_from_elsewhere(pid: int, number: int) -> None:
    """As a scheduler does it: the sender is not the parent."""
    os.waitpid(os.posix_spawn("/bin/kill", ["kill", f"-{int(number)}", str(pid)], os.environ), 0)


def test_workers_by_default() -> None:
    assert 1 <= loading.default_workers() <= 4
    assert loading.default_workers() <= usable_cores()


def test_draws_travel_with_the_images_and_repeat_if_asked(photos: Manifest) -> None:
    rows = [[(0, 0), (1, 5), (2, 2)]]
    plain = next(load(images(photos), rows, workers=0))
    assert plain.draws.tolist() == [0, 5, 2]
    cycled = next(load(images(photos, distinct_draws=3), rows, workers=0))
    assert cycled.draws.tolist() == [0, 5, 2]
    modulo = next(load(images(photos), [[(0, 0), (1, 2), (2, 2)]], workers=0))
    assert torch.equal(cycled.inputs, modulo.inputs)
    assert not torch.equal(cycled.inputs[1], plain.inputs[1])


def many_views(manifest: Manifest, text: str = "views", **settings) -> Images:
    augmentation = components.load("augmentations", text, size=SPEC.crop)
    views = data.split_views(augmentation, 2)
    return Images(manifest, SPEC, views, **{"seed": 0} | settings)


def test_views_come_in_one_tensor_for_each_size(photos: Manifest) -> None:
    rows = [[(0, 0), (1, 5), (2, 2)]]
    batch = next(load(many_views(photos), rows, workers=0))
    assert [tuple(group.shape) for group in batch.views] == [(2, 3, 3, 24, 24), (4, 3, 3, 10, 10)]
    assert all(group.dtype == torch.uint8 for group in batch.views)
    assert torch.equal(batch.inputs, batch.views[0][0])
    moved = batch.to(torch.device("meta"))
    assert {each.device.type for each in (moved.inputs, *moved.views)} == {"meta"}
    assert moved.inputs._base is moved.views[0]  # not moved a second time
    flat = [view for group in batch.views for view in group[:, :, 0, 0, 0].tolist()]
    assert len({tuple(view) for view in flat}) == 6  # every view is another draw


@pytest.mark.parametrize("cached", [False, True])
def test_any_number_of_workers_gives_the_same_views(photos: Manifest, cached: bool) -> None:
    expected = list(load(many_views(photos), BATCHES, workers=0))
    loaded = list(load(many_views(photos, cache=cached), iter(BATCHES), workers=2))
    for left, right in zip(loaded, expected, strict=True):
        assert same(left, right)
        assert all(torch.equal(a, b) for a, b in zip(left.views, right.views, strict=True))


def test_further_views_change_no_other(photos: Manifest) -> None:
    rows = [[(3, 0), (1, 5)]]
    few = next(load(many_views(photos, "views:small=1"), rows, workers=0))
    more = next(load(many_views(photos, "views:small=3"), rows, workers=0))
    assert torch.equal(few.views[0], more.views[0])
    assert torch.equal(few.views[1], more.views[1][:1])
    alone = next(load(images(photos, "views"), rows, workers=0))  # as a training step sees them
    assert alone.views == ()
    assert torch.equal(alone.inputs, more.inputs)
    other = next(load(many_views(photos, seed=1), rows, workers=0))
    assert not torch.equal(other.views[0], more.views[0])


def test_any_augmentation_gives_several_views(photos: Manifest) -> None:
    rows = [[(3, 0), (1, 5)]]
    batch = next(load(many_views(photos, "crop"), rows, workers=0))
    [group] = batch.views
    assert group.shape == (2, 2, 3, 24, 24)
    assert not torch.equal(group[0], group[1])
    assert torch.equal(group[0], next(load(images(photos, "crop"), rows, workers=0)).inputs)
    plain = next(load(many_views(photos, "crop").as_test(), rows, workers=0))
    assert plain.views == ()
    assert torch.equal(plain.inputs, next(load(images(photos, "center"), rows, workers=0)).inputs)


def test_images_that_fail_have_no_views(photos: Manifest) -> None:
    Path(photos.paths[1]).write_bytes(b"no image")
    source = many_views(photos, skip_bad=True)
    batch = next(load(source, [[(0, 0), (1, 0), (2, 0)]], workers=0))
    assert [group.shape[1] for group in batch.views] == [2, 2]
    assert batch.rows.tolist() == [0, 2]
    nothing = next(load(source, [[(1, 0)]], workers=0))
    assert (nothing.views, len(nothing.inputs)) == ((), 0)


def test_the_same_images_under_another_augmentation(photos: Manifest) -> None:
    augmented = images(photos, cache=True)
    plain = augmented.as_test()
    assert plain.cache is augmented.cache
    rows = [[(row, 3) for row in range(len(photos))]]
    expected = next(load(images(photos, "center"), rows, workers=0))
    assert torch.equal(next(load(plain, rows, workers=0)).inputs, expected.inputs)
    assert not torch.equal(next(load(augmented, rows, workers=0)).inputs, expected.inputs)
