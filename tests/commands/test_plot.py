"""`mltool plot` from the shell: PNGs from files only."""

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from mltool.commands.plot import plot
from mltool.errors import InputError, UsageError
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

app = typer.Typer()
app.command()(plot)


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


def call(*words, error=None):
    done = CliRunner().invoke(app, [str(word) for word in words])
    if error is None:
        assert done.exit_code == 0, (done.output, done.exception)
    else:
        assert isinstance(done.exception, error), (done.output, done.exception)
    return done


@pytest.mark.parametrize(
    "words",
    [
        ["tsne", "emb.h5"],
        ["ranking", "emb.h5", "--worst", "2", "-k", "3"],
        ["ranking", "emb.h5", "emb.h5", "--query", "a/1.jpg", "--query", "b/0.jpg", "-k", "2"],
    ],
)
def test_pictures(files, tmp_path, monkeypatch, words):
    monkeypatch.chdir(files)
    sizes = set()
    for name in ("one.png", "two.png"):
        call(*words, "-o", tmp_path / name)
        with Image.open(tmp_path / name) as picture:
            assert picture.format == "PNG"
            sizes.add(picture.size)
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_what_is_refused(files, tmp_path):
    out = ("-o", tmp_path / "x.png")
    call("ranking", files / "emb.h5", *out, "--query", "c/1.jpg", error=InputError)
    call("ranking", files / "emb.h5", *out, "--worst", 0, error=UsageError)
    call("tsne", files / "nothing.h5", *out, error=InputError)
    call("ranking", files / "homeless.h5", *out, error=InputError)
    assert CliRunner().invoke(app, ["pie", "x", "-o", "y"]).exit_code == 2
    assert not (tmp_path / "x.png").exists()
