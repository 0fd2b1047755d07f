"""`mltool evaluate --protocol revisited` from the shell."""

import csv
import json
import os
import pickle

import numpy as np
import pytest
from PIL import Image

from mltool.datasets import roxford5k
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

QUERIES, GALLERY = ["q0", "q1", "q2"], [f"im{row}" for row in range(12)]
GND = [
    {"bbx": [2, 3, 40, 30], "easy": [0, 1], "hard": [2], "junk": [3]},
    {"bbx": [0, 0, 50, 99], "easy": [4], "hard": [5, 6], "junk": []},
    {"bbx": [5, 5, 30, 30], "easy": [], "hard": [7], "junk": [0]},
]
TRUTH = {"imlist": GALLERY, "qimlist": QUERIES, "gnd": GND}


@pytest.fixture
def files(tmp_path):
    rng = np.random.default_rng(0)

    def write(name, names, **about):
        vectors = rng.standard_normal((len(names), 5))
        about = {"space": "t" * 64} | about
        embeddings.write(tmp_path / name, Embeddings(names, vectors, **about))

    write("gallery.h5", [f"{name}.jpg" for name in GALLERY])
    write("student.h5", [f"{name}.jpg" for name in QUERIES], space="s" * 64, teacher_space="t" * 64)
    (tmp_path / "more").mkdir()
    for number in range(2):
        write(f"more/part-{number}.h5", [f"d{number}/{row}.jpg" for row in range(40)])
    (tmp_path / "gnd.pkl").write_bytes(pickle.dumps(TRUTH))
    (tmp_path / "gnd.json").write_text(json.dumps(TRUTH))
    return tmp_path


def words(files, *more, truth="gnd.pkl"):
    sides = (files / "student.h5", files / "gallery.h5")
    return ("evaluate", *sides, "--protocol", "revisited", "--ground-truth", files / truth, *more)


def test_the_table(call, files):
    lines = call(*words(files, "-q")).stdout.splitlines()
    assert lines[0].split() == ["map", "mp@1", "mp@5", "mp@10"]
    assert [line.split()[0] for line in lines[1:4]] == ["easy", "medium", "hard"]
    report = json.loads(call(*words(files, "--json")).stdout)
    for line in lines[1:4]:
        setup, *cells = line.replace(" %", "").split()
        for measure, cell in zip(("map", "mp@1", "mp@5", "mp@10"), cells, strict=True):
            assert cell == f"{100 * report[f'{measure}_{setup}']:.2f}"
    counts = {line[:-10].strip(): line.split()[-1] for line in lines[5:]}
    assert counts == {
        "queries": "3",
        "without positives easy": "1",
        "without positives medium": "0",
        "without positives hard": "0",
        "gallery": "12",
        "distractors": "0",
        "ties": "0",
    }


def test_json_and_pickle_give_the_same(call, files):
    one = call(*words(files, "--json")).stdout
    assert call(*words(files, "--json", truth="gnd.json")).stdout == one


def test_distractors_are_files_folders_and_globs(call, files):
    plain = json.loads(call(*words(files, "--json")).stdout)
    parts = [files / "more" / f"part-{number}.h5" for number in range(2)]
    folder = call(*words(files, "--json", "--distractors", files / "more")).stdout
    both = [word for part in parts for word in ("--distractors", part)]
    assert call(*words(files, "--json", *both)).stdout == folder
    found = json.loads(folder)
    assert found["distractors"] == 80
    assert found["map_medium"] < plain["map_medium"]


def test_files_and_their_history(call, files):
    more = ("--distractors", files / "more", "--per-query", files / "q.csv", "-o", files / "r.json")
    done = call(*words(files, "--json", *more))
    report = json.loads((files / "r.json").read_text())
    assert report == json.loads(done.stdout)
    with open(files / "q.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["relevant"] for row in rows] == ["3", "3", "1"]
    assert rows[2]["map_easy"] == ""
    values = [float(row["map_hard"]) for row in rows]
    assert np.mean(values) == pytest.approx(report["map_hard"])
    step = json.loads((files / "r.json.history.json").read_text())["history"][-1]
    assert step["settings"] == {"protocol": "revisited", "any_model": False}
    named = [(item["option"], item["name"]) for item in step["inputs"]][2:]
    assert named == [
        ("--ground-truth", "gnd.pkl"),
        ("--distractors", "part-0.h5"),
        ("--distractors", "part-1.h5"),
    ]


class Hostile:
    def __reduce__(self):
        return os.mkdir, (os.environ["HOSTILE"],)


def test_a_hostile_ground_truth(call, files, monkeypatch):
    monkeypatch.setenv("HOSTILE", str(files / "owned"))
    (files / "gnd.pkl").write_bytes(pickle.dumps(TRUTH | {"gnd": Hostile()}))
    done = call(*words(files), status=5)
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "a pickle can run programs" in done.stderr
    assert not (files / "owned").exists()


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("student.h5 gallery.h5 --protocol revisited", 2, "needs --ground-truth"),
        ("student.h5 gallery.h5 --ground-truth gnd.pkl", 2, "needs --protocol"),
        ("student.h5 gallery.h5 --distractors more", 2, "needs --protocol"),
        ("student.h5 gallery.h5 --protocol old --ground-truth gnd.pkl", 2, "old"),
        ("@ --metrics map", 2, "leave out --metrics"),
        ("@ --bootstrap 9", 2, "leave out --bootstrap"),
        ("@ --run x.run", 2, "leave out --run"),
        ("@ -o gnd.pkl", 2, "input and output at once"),
        ("@ -o more/part-0.h5 --distractors more", 2, "input and output at once"),
        ("@ --distractors none.h5", 5, "none.h5"),
        ("@ --distractors gallery.h5", 5, "more than once"),
        ("student.h5 more --protocol revisited --ground-truth gnd.pkl", 5, "lacks 12 of 12"),
        ("gallery.h5 --protocol revisited --ground-truth gnd.pkl", 5, "give the gallery too"),
        ("student.h5 gallery.h5 --protocol revisited --ground-truth no.pkl", 5, "no.pkl"),
        ("student.h5 gallery.h5 --protocol revisited --ground-truth gallery.h5", 5, "no pickle"),
    ],
)
def test_what_is_refused(call, files, monkeypatch, line, status, message):
    monkeypatch.chdir(files)
    whole = "student.h5 gallery.h5 --protocol revisited --ground-truth gnd.pkl"
    done = call("evaluate", *line.replace("@", whole).split(), status=status)
    assert message in done.stderr
    assert done.stdout == ""


def test_from_the_official_layout_to_the_table(call, tmp_path, monkeypatch):
    """One file of queries and gallery, or two of a student and its teacher: the same answer."""
    monkeypatch.setattr(roxford5k, "COUNTS", {"query": 3, "gallery": 12})
    root = tmp_path / "roxford5k"
    (root / "jpg").mkdir(parents=True)
    rng = np.random.default_rng(0)
    photos = {}
    for name in [*GALLERY, *QUERIES]:
        shape = (rng.integers(40, 90), rng.integers(50, 90), 3)
        photos[name] = rng.integers(0, 256, shape, dtype=np.uint8)
    for query, answer in zip(QUERIES, GND, strict=True):  # the box alone is what is in the gallery
        left, top, right, bottom = answer["bbx"]
        part = photos[query][top:bottom, left:right]
        photos[GALLERY[(answer["easy"] + answer["hard"])[0]]] = part
    for name, pixels in photos.items():
        Image.fromarray(pixels).save(root / "jpg" / f"{name}.jpg", quality=100, subsampling=0)
    (root / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(TRUTH))
    revisited = ("--protocol", "revisited", "--ground-truth", root / "gnd_roxford5k.pkl", "--json")
    embed = ("--image-size", 16, "-j", 0, "-q")
    call("embed", "pixels", f"roxford5k:{root}", "-o", tmp_path / "all.h5", *embed)
    one = call("evaluate", tmp_path / "all.h5", *revisited).stdout
    for split in ("query", "gallery"):
        data = f"roxford5k:{root}:{split}"
        call("embed", "pixels", data, "-o", tmp_path / f"{split}.h5", *embed)
    two = call("evaluate", tmp_path / "query.h5", tmp_path / "gallery.h5", *revisited).stdout
    assert one == two
    assert json.loads(one)["mp@1_medium"] == 1
