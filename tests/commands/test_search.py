"""`mltool index` and `mltool search` from the shell."""

from pathlib import Path

import h5py
import numpy as np
import pytest

from mltool.files import embeddings, search_index
from mltool.files.embeddings import Embeddings
from mltool.files.history import read as read_history


@pytest.fixture(scope="module")
def files(call, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((40, 8))
    names = [f"g {n:02d}.jpg" for n in range(40)]
    whole = Embeddings(names, vectors, space="a" * 64)
    embeddings.write(folder / "gallery.h5", whole)
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(40), 3)):
        part = Embeddings(whole.names[rows], whole.vectors[rows], space="a" * 64)
        embeddings.write(folder / "shards" / f"{number}.h5", part)
    asked = Embeddings(["q1", "q2"], vectors[:2] * 3 + 0.01, space="a" * 64)
    embeddings.write(folder / "queries.h5", asked)
    embeddings.write(folder / "other.h5", Embeddings(["q1"], vectors[:1], space="b" * 64))
    sixteen = Embeddings(names, rng.standard_normal((40, 16)), space="a" * 64)
    embeddings.write(folder / "sixteen.h5", sixteen)
    embeddings.write(folder / "narrow.h5", Embeddings(["q1"], vectors[:1, :3]))
    done = call("index", folder / "gallery.h5", "-o", folder / "flat.index", "--type", "flat")
    assert done.stdout == ""
    return folder


def test_a_pipe_gets_tsv(call, files):
    lines = call("search", files / "gallery.h5", files / "queries.h5", "-k", 3).stdout.splitlines()
    assert lines[0] == "query\trank\tname\tscore"
    assert len(lines) == 1 + 2 * 3
    assert lines[1].split("\t")[:3] == ["q1", "1", "g 00.jpg"]


def test_an_index_gives_the_hits_of_exact_search(call, files):
    exact = call("search", files / "gallery.h5", files / "queries.h5").stdout.splitlines()
    found = call("search", files / "flat.index", files / "queries.h5").stdout.splitlines()
    assert [line.split("\t")[:3] for line in found] == [line.split("\t")[:3] for line in exact]


def test_shards_and_globs_are_one_gallery(call, files, tmp_path):
    whole = call("search", files / "gallery.h5", files / "queries.h5").stdout
    assert call("search", files / "shards", files / "queries.h5").stdout == whole
    assert call("search", files / "shards" / "*.h5", files / "queries.h5").stdout == whole
    call("index", files / "shards", "-o", tmp_path / "shards.index")
    assert search_index.read(tmp_path / "shards.index").names.tolist() == (
        search_index.read(files / "flat.index").names.tolist()
    )


def test_what_is_stored_with_an_index(call, files):
    about = search_index.read(files / "flat.index")
    assert about.recall == 1.0
    assert about.recall_queries == 40
    assert about.space == "a" * 64
    step = about.history[-1]
    assert step["command"] == "index"
    assert step["settings"] == {"type": "Flat", "seed": 0}
    assert step["counts"] == {"vectors": 40, "trained_on": 0}


def test_output_by_its_ending(call, files, tmp_path):
    for name in ("hits.h5", "hits.tsv", "hits.run"):
        done = call("search", files / "flat.index", files / "queries.h5", "-o", tmp_path / name)
        assert done.stdout == ""
        steps = [step["command"] for step in read_history(tmp_path / name)]
        assert steps == ["index", "search"]
    with h5py.File(tmp_path / "hits.h5") as file:
        assert file["names"].shape == (2, 10)
    assert len((tmp_path / "hits.run").read_text().splitlines()) == 20


def test_hits_below_a_score_are_left_out(call, files):
    every = call("search", files / "gallery.h5", files / "queries.h5", "-k", 40).stdout
    some = call(
        "search", files / "gallery.h5", files / "queries.h5", "-k", 40, "--min-score", 0.5
    ).stdout
    scores = [float(line.split("\t")[3]) for line in every.splitlines()[1:]]
    assert len(some.splitlines()) - 1 == sum(score >= 0.5 for score in scores)


def test_self_is_left_out_on_request(call, files):
    for db in ("gallery.h5", "flat.index"):
        kept = call("search", files / db, files / "gallery.h5", "-k", 1).stdout
        left = call("search", files / db, files / "gallery.h5", "-k", 1, "--skip-self").stdout
        rows = [[line.split("\t") for line in text.splitlines()[1:]] for text in (kept, left)]
        assert all(row[0] == row[2] for row in rows[0])
        assert all(row[0] != row[2] for row in rows[1])


@pytest.mark.parametrize("db", ["gallery.h5", "flat.index"])
def test_what_search_refuses(call, files, db):
    refused = call("search", files / db, files / "other.h5", status=5)
    assert "--any-model" in refused.stderr
    call("search", files / db, files / "other.h5", "--any-model")
    refused = call("search", files / db, files / "narrow.h5", status=5)
    assert "3-d vectors, but the gallery holds 8-d ones" in refused.stderr
    call("search", files / db, files / "nothing.h5", status=5)
    call("search", files / "nothing.h5", files / "queries.h5", status=5)
    call("search", files / db, files / "queries.h5", "-k", 0, status=2)
    call("search", files / db, files / "queries.h5", "-o", "/nowhere/x.h5", status=6)


def test_a_damaged_index_is_refused(call, files, tmp_path):
    data = bytearray((files / "flat.index").read_bytes())
    with h5py.File(files / "flat.index") as file:
        data[file["faiss"].id.get_offset() + 500] ^= 16
    (tmp_path / "bad.index").write_bytes(data)
    refused = call("search", tmp_path / "bad.index", files / "queries.h5", status=5)
    assert "damaged" in refused.stderr


@pytest.mark.parametrize("words", [["--type", "nonsense"], ["--type", "ivf:cells=2"]])
def test_what_index_refuses(call, files, tmp_path, words):
    call("index", files / "gallery.h5", "-o", tmp_path / "x", *words, status=2)
    call("index", files / "nothing.h5", "-o", tmp_path / "x", status=5)
    twice = (files / "gallery.h5", files / "gallery.h5")
    call("index", *twice, "-o", tmp_path / "x", status=5)
    assert not (tmp_path / "x").exists()


@pytest.fixture(scope="module")
def database(call, model, photos, tmp_path_factory):
    path = tmp_path_factory.mktemp("database") / "photos.h5"
    call("embed", model, photos, "-o", path, "-j", 0, "-q")
    return path


def hits_of(done):
    rows = [line.split("\t") for line in done.stdout.splitlines()[1:]]
    return [(query, name) for query, rank, name, _ in rows if rank == "1"]


def test_images_are_queries_of_the_model(call, database, model, photos, monkeypatch):
    monkeypatch.chdir(photos)
    names = ["class1/2.jpg", "class4/0.jpg"]
    best = [(name, name) for name in names]
    ours = ("--model", model, "-j", 0)
    assert hits_of(call("search", database, names[0], *ours)) == best[:1]
    assert hits_of(call("search", database, *names, *ours)) == best
    lines = "\n".join(names).encode()
    assert hits_of(call("search", database, "-", *ours, input=lines)) == best
    folder = hits_of(call("search", database, "class2", *ours))
    assert [f"class2/{query}" for query, _ in folder] == [name for _, name in folder]
    Path("list.csv").write_text(f"path\n{names[1]}\n")
    assert hits_of(call("search", database, "list.csv", *ours)) == best[1:]
    Path("list.csv").unlink()


def test_images_find_what_their_embeddings_find(call, database, model, photos, tmp_path):
    ours = ("--model", model, "-j", 0, "-b", 7, "--skip-self", "-k", 3)
    found = call("search", database, photos, *ours).stdout
    expected = call("search", database, database, "--skip-self", "-k", 3).stdout
    rows, wanted = (
        [line.split("\t")[:3] for line in text.splitlines()] for text in (found, expected)
    )
    assert rows == wanted
    call("search", database, photos / "class0", *ours, "-o", tmp_path / "hits.h5")
    step = read_history(tmp_path / "hits.h5")[-1]
    assert [item["option"] for item in step["inputs"]] == ["db", "queries", "--model"]
    assert step["settings"]["batch_size"] == 7
    assert "device" not in step["settings"]


def test_images_of_another_model_are_refused(call, files, model, photos):
    photo = photos / "class0" / "0.jpg"
    refused = call("search", files / "gallery.h5", photo, status=5)
    assert "say --model MODEL" in refused.stderr
    refused = call("search", files / "sixteen.h5", photo, "--model", model, "-j", 0, status=5)
    assert "say --any-model" in refused.stderr
    call("search", files / "sixteen.h5", photo, "--model", model, "-j", 0, "--any-model")
    call("search", files / "sixteen.h5", "nothing.jpg", "--model", model, status=5)


@pytest.mark.parametrize(
    ("db", "words", "status"),
    [
        ("gallery.h5", ["-k", 0], 2),
        ("sixteen.h5", ["--min-score", "nan"], 2),
        ("sixteen.h5", ["--device", "cuda:99"], 2),
        ("sixteen.h5", ["-o", "/nowhere/x.h5"], 6),
        ("sixteen.h5", [], 5),
        ("gallery.h5", ["--any-model"], 5),
        ("nothing.h5", [], 5),
    ],
)
def test_no_image_is_decoded_before_a_refusal(
    call, files, model, photos, monkeypatch, db, words, status
):
    decoded = []
    monkeypatch.setattr("mltool.engine.data.Images.__getitems__", decoded.append, raising=False)
    monkeypatch.setattr(
        "mltool.commands.embed_queries.embed_rows", lambda *_, **__: decoded.append(1)
    )
    photo = photos / "class0" / "0.jpg"
    call("search", files / db, photo, "--model", model, "-j", 0, *words, status=status)
    assert not decoded
