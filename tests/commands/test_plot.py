"""`mltool plot` from the shell: PNGs from files only."""

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
    return folder


@pytest.mark.parametrize(
    "words",
    [
        ["tsne", "emb.h5"],
        ["ranking", "emb.h5", "--worst", "2", "-k", "3"],
        ["ranking", "emb.h5", "emb.h5", "--query", "a/1.jpg", "--query", "b/0.jpg", "-k", "2"],
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
    assert not (tmp_path / "x.png").exists()
