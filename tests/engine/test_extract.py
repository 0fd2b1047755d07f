"""Vectors come in order, whatever the batch size, the workers and the unreadable images."""

import dataclasses

import numpy as np
import pytest
import tiny_runs
import torch

from mltool.engine.data import Images
from mltool.engine.extract import Block, Extraction, embed_blocks, embed_rows
from mltool.engine.loading import load
from mltool.errors import InputError
from mltool.files.names import StringArray
from mltool.models.embedder import Embedder

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def model() -> Embedder:
    torch.set_num_threads(1)
    return tiny_runs.model(seed=1)


@pytest.fixture(scope="module")
def images(model: Embedder) -> Images:
    return tiny_runs.images(tiny_runs.manifest(each=5), model, "center")


@pytest.fixture(scope="module")
def expected(model: Embedder, images: Images) -> np.ndarray:
    """The embeddings of each image, one at a time through the bare model."""
    model.eval()
    with torch.inference_mode():
        batches = load(images, [[(row, 0)] for row in range(25)], workers=0)
        return np.concatenate([model(batch.inputs).numpy() for batch in batches])


def extract(model, images: Images, rows: range = range(25), **changes) -> list[Block]:
    views = changes.pop("views", 1)
    return list(embed_blocks(model, images, rows, how(**changes), views=views))


def how(**changes) -> Extraction:
    settings = {"batch_size": 8, "workers": 0, "device": CPU, "precision": "fp32"}
    return Extraction(**settings | changes)


@pytest.mark.parametrize("batch_size", [1, 3, 8, 16, 100])
@pytest.mark.parametrize("workers", [0, 2])
def test_rows_come_in_order(model, images, expected, batch_size, workers) -> None:
    found = extract(model, images, batch_size=batch_size, workers=workers)
    assert [len(block.vectors) for block in found[:-1]] == [batch_size] * (len(found) - 1)
    vectors = np.concatenate([block.vectors for block in found])
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, expected, atol=1e-5)
    assert all(block.kept.all() and not block.failures for block in found)


def test_a_part_is_that_part_of_the_whole_bit_for_bit(model, images) -> None:
    whole = np.concatenate([block.vectors for block in extract(model, images)])
    for rows in (range(11), range(11, 25), range(24, 25), range(8, 8)):
        found = [block.vectors for block in extract(model, images, rows)]
        part = np.concatenate(found) if found else np.empty((0, 8), np.float32)
        np.testing.assert_array_equal(part, whole[rows.start : rows.stop])


def test_the_model_is_put_into_evaluation_mode(model, images, expected) -> None:
    model.train()
    found = np.concatenate([block.vectors for block in extract(model, images)])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert not model.training


def test_half_precision_gives_nearly_the_same_as_float32(model, images, expected) -> None:
    found = np.concatenate([b.vectors for b in extract(model, images, precision="bf16")])
    assert found.dtype == np.float32
    assert (found * expected).sum(1).min() > 0.995
    assert np.abs(found - expected).max() > 0  # it was really asked for


def broken(images: Images, rows: list[int], **settings) -> Images:
    paths = list(images.manifest.paths)
    for row in rows:
        paths[row] = f"/no/{row}.png"
    manifest = dataclasses.replace(images.manifest, paths=StringArray.from_texts(paths))
    return tiny_runs.images(manifest, tiny_runs.model(seed=1), "center", **settings)


def test_unreadable_images_are_left_out_or_stop(model, images, expected) -> None:
    bad = [2, 8, 9, 10, 11, 12, 13, 14, 15, 24]  # a whole batch among them, and the last
    with pytest.raises(InputError, match=r"/no/2\.png"):
        extract(model, broken(images, bad))
    found = extract(model, broken(images, bad, skip_bad=True))
    kept = np.concatenate([block.kept for block in found])
    assert np.flatnonzero(~kept).tolist() == bad
    vectors = np.concatenate([block.vectors for block in found])
    assert not vectors[~kept].any()
    np.testing.assert_allclose(vectors[kept], expected[kept], atol=1e-5)
    reasons = [reason for block in found for reason in block.failures]
    assert len(reasons) == 10
    assert all(f"/no/{row}.png" in reason for row, reason in zip(bad, reasons, strict=True))


def test_embed_rows_is_all_blocks_at_once(model, images, expected) -> None:
    found = embed_rows(model, images, how(batch_size=7))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_views_stand_in_one_row_and_are_the_first_draws(model) -> None:
    images = tiny_runs.images(tiny_runs.manifest(each=2), model, "affine", seed=9)
    found = np.concatenate([b.vectors for b in extract(model, images, range(10), views=3)])
    assert found.shape == (10, 24)
    model.eval()
    for view in range(3):
        batch = next(load(images, [[(row, view) for row in range(10)]], workers=0))
        with torch.inference_mode():
            expected = model(batch.inputs).numpy()
        np.testing.assert_allclose(found[:, 8 * view : 8 * (view + 1)], expected, atol=1e-5)


def test_an_unreadable_image_lacks_all_its_views_and_is_told_once(model) -> None:
    of = tiny_runs.manifest(each=2)
    paths = [of.paths[row] for row in range(len(of))]
    paths[3] = "/nowhere.jpg"
    of = dataclasses.replace(of, paths=StringArray.from_texts(paths))
    images = tiny_runs.images(of, model, "affine", skip_bad=True)
    (block,) = extract(model, images, range(10), batch_size=10, views=2)
    assert np.flatnonzero(~block.kept).tolist() == [3]
    assert len(block.failures) == 1
    assert not block.vectors[3].any()


def test_some_rows_in_any_order(model, images, expected) -> None:
    rows = [7, 3, 3, 24]
    found = embed_rows(model, images, how(batch_size=3), rows=rows)
    np.testing.assert_allclose(found, expected[rows], atol=1e-5)
