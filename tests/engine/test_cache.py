"""The pixel cache: same pixels as without, whatever fits, shared between processes."""

import multiprocessing
import os
from pathlib import Path

import numpy as np
import pytest

from mltool.engine import cache
from mltool.engine.cache import PixelCache


def image(number: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(number).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_what_is_put_is_got() -> None:
    pixels = PixelCache(4, bytes_per_image=200)
    assert all(pixels.get(row) is None for row in range(4))
    pixels.put(2, image(2))
    pixels.put(0, image(0, 3, 11))
    np.testing.assert_array_equal(pixels.get(2), image(2))
    np.testing.assert_array_equal(pixels.get(0), image(0, 3, 11))
    assert pixels.get(1) is None
    pixels.put(2, image(9))  # a second putting changes nothing
    np.testing.assert_array_equal(pixels.get(2), image(2))


def test_a_view_with_another_layout_is_kept_as_it_looks() -> None:
    pixels = PixelCache(1, bytes_per_image=200)
    turned = image(1).transpose(1, 0, 2)
    pixels.put(0, turned)
    np.testing.assert_array_equal(pixels.get(0), turned)


def test_a_full_cache_keeps_what_it_has() -> None:
    pixels = PixelCache(5, bytes_per_image=105)  # 5 x 7 x 3, exactly
    for row in range(5):
        pixels.put(row, image(row))
    assert all((pixels.get(row) == image(row)).all() for row in range(5))
    small = PixelCache(5, bytes_per_image=50)  # 250 bytes: two images of 105
    for row in range(5):
        small.put(row, image(row))
    assert [small.get(row) is not None for row in range(5)] == [True, True, False, False, False]
    small.put(4, image(4, 2, 2))  # what still fits is taken
    np.testing.assert_array_equal(small.get(4), image(4, 2, 2))


@pytest.mark.parametrize("free", [0, 150, 10**9])
def test_no_more_than_a_share_of_the_free_memory(free: int, monkeypatch) -> None:
    monkeypatch.setattr(cache, "measure_free_memory", lambda: free)
    pixels = PixelCache(3, bytes_per_image=105)
    assert pixels.capacity == min(315, int(free * cache.SHARE_OF_FREE_MEMORY))
    pixels.put(0, image(0, 2, 2))
    assert (pixels.get(0) is not None) == (free > 0)


def test_an_empty_data_set() -> None:
    assert PixelCache(0, bytes_per_image=100).capacity == 1


def test_free_memory_is_plausible() -> None:
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    assert 0 < cache.measure_free_memory() <= total


def group(folder: Path, limit: str, used: str, files: int = 0, *, old: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    names = ("memory.limit_in_bytes", "memory.usage_in_bytes") if old else None
    for name, text in zip(names or ("memory.max", "memory.current"), (limit, used), strict=True):
        (folder / name).write_text(f"{text}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {files}\n")


def test_limits_of_a_job_and_of_a_container_count(tmp_path: Path) -> None:
    (tmp_path / "proc/self").mkdir(parents=True)
    own = tmp_path / "proc/self/cgroup"
    assert list(cache.measure_room_in_groups(tmp_path)) == []
    top = tmp_path / "sys/fs/cgroup"
    own.write_text("0::/slurm/job_7/step_0\n")
    group(top / "slurm/job_7/step_0", "max", "90")
    group(top / "slurm/job_7", "1000", "700", 50)  # the limit of the job holds for its steps
    group(top / "slurm", "9000", "900")
    assert list(cache.measure_room_in_groups(tmp_path)) == [350, 8100]
    own.write_text("0::/\n")  # as a container sees itself
    group(top, "500", "100")
    assert list(cache.measure_room_in_groups(tmp_path)) == [400]
    own.write_text("4:cpu,cpuacct:/a\n9:memory:/docker/abc\n")  # the older layout
    group(top / "memory", "300", "100", 20, old=True)
    assert list(cache.measure_room_in_groups(tmp_path)) == [220]


def test_forked_processes_fill_one_cache() -> None:
    pixels = PixelCache(64, bytes_per_image=105)

    def fill(start: int) -> None:
        for row in [*range(start, 64), *range(start)]:  # all try all rows, at the same time
            pixels.put(row, image(row))
            found = pixels.get(row)
            assert found is None or (found == image(row)).all()

    fork = multiprocessing.get_context("fork")
    workers = [fork.Process(target=fill, args=(start,)) for start in (0, 5, 32, 60)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
        assert worker.exitcode == 0
    kept = [pixels.get(row) for row in range(64)]
    assert sum(found is not None for found in kept) >= 32  # two at a time may both take room
    for row, found in enumerate(kept):
        assert found is None or (found == image(row)).all()
