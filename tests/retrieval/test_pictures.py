"""Plots: PNGs of the right size whose colours say what is right and what is wrong."""

import builtins
import io

import numpy as np
import pytest
from PIL import Image

from mltool.errors import InputError, UsageError
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.retrieval import pictures
from mltool.retrieval.pictures import Ranking

GREEN, RED = (26, 152, 80), (215, 48, 39)


@pytest.fixture(scope="module")
def photos_and_vectors(tmp_path_factory):
    """Two classes of three images; the vector of `a2` lies among those of class b."""
    folder = tmp_path_factory.mktemp("photos")
    names = ["a0", "a1", "a2", "b0", "b1", "b2"]
    vectors = [[1, 0], [1, 0.1], [0.1, 1], [0, 1], [0.05, 1], [0.02, 1]]
    for name in names:
        Image.new("RGB", (40, 30), (200, 200, 255)).save(folder / f"{name}.jpg")
    found = Embeddings([f"{name}.jpg" for name in names], vectors, [name[0] for name in names])
    paths = StringArray.from_texts(str(folder / f"{name}.jpg") for name in names)
    listed = Manifest(found.names, paths, found.labels, found.label_names, {}, str(folder))
    return found, listed


def pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def count(picture, colour):
    return int((np.abs(picture.astype(int) - colour).max(axis=2) < 8).sum())


def draw_ranking(queries, gallery, images, **settings):
    if gallery is None:
        return pictures.draw_rankings([Ranking.from_roles("x", queries)], images, **settings)
    return pictures.draw_rankings([Ranking("x", queries, gallery)], images, **settings)


def draw_tsne(embeddings, **settings):
    return pictures.draw_tsne([("x", embeddings)], **settings)


def test_wrong_and_right_hits_have_their_colours(photos_and_vectors):
    found, listed = photos_and_vectors
    wrong = pixels(draw_ranking(found, None, listed, query_names=["a2.jpg"], k=3))
    assert count(wrong, RED) > 500
    assert count(wrong, GREEN) == 0
    right = pixels(draw_ranking(found, None, listed, query_names=["a0.jpg"], k=1))
    assert count(right, GREEN) > 200
    assert count(right, RED) == 0


def test_the_worst_queries_come_by_themselves(photos_and_vectors):
    found, listed = photos_and_vectors
    chosen = draw_ranking(found, None, listed, query_names=["a2.jpg"], k=3)
    assert draw_ranking(found, None, listed, worst=1, k=3) == chosen


def test_a_gallery_of_its_own(photos_and_vectors):
    found, listed = photos_and_vectors
    picture = pixels(draw_ranking(found, found, listed, query_names=["b0.jpg", "b1.jpg"], k=9))
    assert picture.shape[1] > picture.shape[0]
    assert count(picture, RED) > count(picture, GREEN) * 0.2


def test_what_a_ranking_refuses(photos_and_vectors):
    found, listed = photos_and_vectors
    with pytest.raises(InputError, match=r"no query is called 'a3\.jpg'; did you mean"):
        draw_ranking(found, None, listed, query_names=["a3.jpg"])
    lone = Embeddings(["a0.jpg", "b0.jpg"], np.eye(2), ["a", "b"])
    with pytest.raises(InputError, match="no query has a relevant row"):
        draw_ranking(lone, None, listed)
    strange = Embeddings(["x", "y"], np.eye(2), ["a", "a"])
    with pytest.raises(InputError, match="in none of the image lists"):
        draw_ranking(strange, None, listed)


@pytest.mark.parametrize("classes", [0, 3, 15, 40])
def test_tsne_draws_every_number_of_classes(classes):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 60) if classes else np.full(60, -1)
    labels[:5] = -1
    found = Embeddings([f"$n_{n}$" for n in range(60)], rng.standard_normal((60, 8)), labels)
    picture = pixels(draw_tsne(found, limit=50, seed=1))
    assert picture.shape[0] > 500
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_tsne_repeats_itself_and_needs_a_few_rows():
    rng = np.random.default_rng(0)
    found = Embeddings([str(n) for n in range(4)], rng.standard_normal((4, 3)), [0, 0, 1, 1])
    assert draw_tsne(found) == draw_tsne(found)
    with pytest.raises(InputError, match="4 vectors or more, but there are 3"):
        draw_tsne(Embeddings(["a", "b", "c"], np.eye(3)))


def test_equal_vectors_are_drawn_too():
    draw_tsne(Embeddings([str(n) for n in range(9)], np.ones((9, 3))))


def test_several_planes_are_side_by_side():
    rng = np.random.default_rng(0)
    found = Embeddings([str(n) for n in range(9)], rng.standard_normal((9, 3)))
    one = pixels(draw_tsne(found))
    two = pixels(pictures.draw_tsne([("x", found), ("$y$", found)]))
    assert two.shape == (one.shape[0], 2 * one.shape[1], one.shape[2])


def test_the_worst_are_those_of_the_first_model(photos_and_vectors):
    found, listed = photos_and_vectors
    other = found.take(np.arange(len(found))[::-1])
    both = [Ranking.from_roles("x", found), Ranking.from_roles("y", other)]
    chosen = pictures.draw_rankings(both, listed, query_names=["a2.jpg"], k=3)
    assert pictures.draw_rankings(both, listed, worst=1, k=3) == chosen
    red = count(pixels(draw_ranking(found, None, listed, query_names=["a2.jpg"], k=3)), RED)
    assert count(pixels(chosen), RED) > 1.5 * red


def test_without_matplotlib_the_extra_is_named(monkeypatch):
    real = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(UsageError, match="extra `plot`"):
        draw_tsne(Embeddings(["a"], np.ones((1, 2))))
