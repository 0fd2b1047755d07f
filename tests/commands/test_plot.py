"""`mltool plot` from the shell: PNGs from files only."""

import json

import numpy as np
import pytest
from PIL import Image

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plot")
    rng = np.random.default_rng(0)
    names = [f"{kind}/{n}.jpg" for kind in "ab" for n in range(4)]
    for name in names:
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (20, 24, 3), np.uint8)).save(path)
    labels = [name[0] for name in names]
    found = Embeddings(names, rng.standard_normal((8, 4)), labels, root=str(folder / "photos"))
    embeddings.write(folder / "emb.h5", found)
    embeddings.write(folder / "homeless.h5", Embeddings(names, found.vectors, labels))
    parts = ((0, 2), (2, 4))
    other = Embeddings(
        names[::-1], rng.standard_normal((8, 4)), labels[::-1], root=found.root, parts=parts
    )
    embeddings.write(folder / "other.h5", other)
    embeddings.write(folder / "few.h5", other.take(np.arange(5)))
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["tsne", "emb.h5"],
        ["tsne", "emb.h5", "other.h5"],
        ["ranking", "emb.h5", "other.h5", "--worst", "2", "-k", "3"],
        ["ranking", "other.h5", "--part", "0", "--part", "all", "--worst", "2", "-k", "3"],
        ["ranking", "emb.h5", "--worst", "2", "-k", "3"],
        [
            "ranking",
            "emb.h5",
            "--gallery",
            "emb.h5",
            "--query",
            "a/1.jpg",
            "--query",
            "b/0.jpg",
            "-k",
            "2",
        ],
    ],
)
def test_pictures(call, files, tmp_path, monkeypatch, words):
    monkeypatch.chdir(files)
    sizes = set()
    for name in ("one.png", "two.png"):
        call("plot", *words, "-o", tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            sizes.add(picture.size)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_is_refused(call, files, tmp_path):
    out = ("-o", tmp_path / "x.png")
    call("plot", "ranking", files / "emb.h5", *out, "--query", "c/1.jpg", status=5)
    call("plot", "ranking", files / "emb.h5", *out, "--worst", 0, status=2)
    call("plot", "tsne", files / "nothing.h5", *out, status=5)
    call("plot", "ranking", files / "homeless.h5", *out, status=5)
    call("plot", "pie", "x", *out, status=2)
    gallery = ("--gallery", files / "emb.h5")
    call("plot", "tsne", files / "emb.h5", *gallery, *out, status=2)
    call("plot", "ranking", files / "emb.h5", files / "other.h5", *gallery, *out, status=2)
    call("plot", "ranking", files / "emb.h5", *out, "--part", "0", status=5)
    call("plot", "ranking", files / "other.h5", *out, "--part", "2", status=5)
    call("plot", "ranking", files / "other.h5", *out, "--part", "both", status=2)
    call("plot", "ranking", files / "emb.h5", files / "few.h5", *out, status=5)
    assert not (tmp_path / "x.png").exists()


def test_several_rankings_are_rows_of_one_picture(call, files, tmp_path):
    words = ("--query", "a/1.jpg", "-k", 3)
    sizes = []
    for models in (["emb.h5"], ["emb.h5", "other.h5"]):
        paths = [files / model for model in models]
        call("plot", "ranking", *paths, *words, "-o", tmp_path / "x.png")
        with Image.open(tmp_path / "x.png") as picture:
            sizes.append(picture.size)
    assert sizes[1] == (sizes[0][0], 2 * sizes[0][1])


def test_how_far_rankings_differ(call, files, tmp_path):
    paths = [files / "emb.h5", files / "other.h5"]
    words = ("-o", tmp_path / "x.png", "--json")
    done = call("plot", "ranking", *paths, "--part", "all", *words, status=5)
    assert "emb.h5 holds vectors without parts" in done.stderr
    same = json.loads(call("plot", "ranking", *paths, *words).stdout)["overlaps"]
    # of eight images all seven others are among the nearest ten
    assert same == [{"first": "emb.h5", "second": "other.h5", "overlap@10": 1.0}]
    done = call("plot", "ranking", files / "other.h5", "--part", 0, "--part", 1, *words[:2])
    assert done.stdout == "other.h5 part 0, other.h5 part 1: overlap@10 100.00 %\n"
    assert call("plot", "ranking", files / "emb.h5", *words[:2]).stdout == ""
