"""Images of one list that stand in another: counted by pixels, thumbnails and vectors."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mltool.errors import InputError, NotFiniteError, ResourceError
from mltool.exact.knn import Resources
from mltool.files.embeddings import Embeddings
from mltool.files.lists import image_lists
from mltool.files.manifest import Manifest
from mltool.retrieval.fingerprints import shrink
from mltool.retrieval.overlap import find_image_overlap, find_vector_overlap


def make_picture(seed: int, size: tuple[int, int] = (70, 90)) -> np.ndarray:
    """A smooth random picture, as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8))
    return np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC))


def compress(pixels: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pool of ten pictures and a test set: two equal, two altered, two new."""
    root = tmp_path_factory.mktemp("overlap")
    for name in ("pool", "test"):
        (root / name).mkdir()
    for seed in range(10):
        Image.fromarray(make_picture(seed)).save(root / "pool" / f"{seed}.png")
    Image.fromarray(make_picture(2)).save(root / "test" / "b.bmp")  # other bytes, equal pixels
    Image.fromarray(make_picture(5)).save(root / "test" / "c.png")
    Image.fromarray(compress(make_picture(7), 60)).save(root / "test" / "d.png")
    half = Image.fromarray(make_picture(8)).resize((45, 35), Image.Resampling.LANCZOS)
    half.save(root / "test" / "e.png")
    for seed in (100, 101):
        Image.fromarray(make_picture(seed)).save(root / "test" / f"x{seed}.png")
    return root


def read(path: Path) -> Manifest:
    return image_lists.read(str(path))


def test_the_same_and_near_images_are_told_apart(folder: Path) -> None:
    pool, test = read(folder / "pool"), read(folder / "test")
    overlap = find_image_overlap(pool, test)
    assert np.flatnonzero(overlap.same).tolist() == [2, 5]
    assert np.flatnonzero(overlap.near).tolist() == [7, 8]
    assert np.flatnonzero(overlap.mask).tolist() == [2, 5, 7, 8]
    matched = {row: test.names[overlap.matches[row]] for row in (2, 5, 7, 8)}
    assert matched == {2: b"b.bmp", 5: b"c.png", 7: b"d.png", 8: b"e.png"}
    assert (overlap.matches[~overlap.mask] == -1).all()
    assert overlap.as_counts() == {"overlap_same": 2, "overlap_near": 2}
    assert str(overlap) == "2 of 10 images are the same, 2 near duplicates"


def test_near_is_the_cosine_of_centred_thumbnails(folder: Path) -> None:
    pool, test = read(folder / "pool"), read(folder / "test")

    def thumbnails(manifest: Manifest) -> np.ndarray:
        rows = []
        for path in manifest.paths:
            grey = Image.open(path).convert("RGB").convert("L").resize((32, 32), Image.BOX)
            values = np.asarray(grey, float).ravel() - np.asarray(grey, float).mean()
            rows.append(values / np.linalg.norm(values))
        return np.array(rows)

    cosines = thumbnails(pool) @ thumbnails(test).T
    assert not ((cosines > 0.979) & (cosines < 0.981)).any()
    overlap = find_image_overlap(pool, test)
    np.testing.assert_array_equal(overlap.mask, (cosines >= 0.98).any(axis=1))


def test_a_list_overlaps_with_itself_whole(folder: Path) -> None:
    pool = read(folder / "pool")
    overlap = find_image_overlap(pool, pool)
    assert overlap.same.all()
    assert overlap.matches.tolist() == list(range(10))


def test_pictures_of_one_colour_are_the_same_or_nothing(tmp_path: Path) -> None:
    for name, grey in (("pool", 10), ("test", 10), ("test", 200)):
        (tmp_path / name).mkdir(exist_ok=True)
        Image.new("RGB", (8, 8), (grey,) * 3).save(tmp_path / name / f"{grey}.png")
    Image.new("RGB", (8, 9), (10, 10, 10)).save(tmp_path / "pool" / "taller.png")
    overlap = find_image_overlap(read(tmp_path / "pool"), read(tmp_path / "test"))
    assert (overlap.same.tolist(), overlap.near.tolist()) == ([True, False], [False, False])
    assert not shrink(np.full((5, 5, 3), 77, np.uint8)).any()


def test_unreadable_images_are_counted(folder: Path, tmp_path: Path, caplog) -> None:
    for seed in (2, 3):
        Image.fromarray(make_picture(seed)).save(tmp_path / f"{seed}.png")
    (tmp_path / "broken.png").write_bytes(b"none")
    overlap = find_image_overlap(read(tmp_path), read(folder / "test"))
    assert overlap.unreadable == 1
    assert overlap.same.tolist() == [True, False, False]
    assert "1 of 3 images are not compared" in caplog.text
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "broken.png").write_bytes(b"none")
    with pytest.raises(InputError, match="none of 1 images can be read"):
        find_image_overlap(read(folder / "pool"), read(tmp_path / "alone"))


def test_too_many_thumbnails_are_refused(folder: Path) -> None:
    with pytest.raises(ResourceError, match="raise --max-memory"):
        find_image_overlap(
            read(folder / "pool"), read(folder / "test"), resources=Resources(max_memory=1000)
        )


def test_vectors_of_one_space_are_compared() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((6, 32))
    others = np.stack([vectors[1] * 3, vectors[2] + 0.05 * rng.standard_normal(32)])
    one = Embeddings(list("abcdef"), vectors, space="s" * 64)
    two = Embeddings(list("xy"), others, space="s" * 64)
    overlap = find_vector_overlap(one, two)
    assert np.flatnonzero(overlap.same).tolist() == [1]
    assert np.flatnonzero(overlap.near).tolist() == [2]
    assert overlap.matches.tolist() == [-1, 0, 1, -1, -1, -1]
    with pytest.raises(InputError, match="--any-model"):
        find_vector_overlap(one, Embeddings(["x"], others[:1], space="t" * 64))
    others[0, 0] = np.nan
    with pytest.raises(NotFiniteError):
        find_vector_overlap(one, Embeddings(list("xy"), others, space="s" * 64))
