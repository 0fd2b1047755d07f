"""`mltool cluster-split` from the shell: clusters of training images, round after round."""

import json
from pathlib import Path

import numpy as np
import pytest

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.history import read as read_history
from mltool.files.lists.csv_list import read_csv

# of twelve classes, three around each of four directions, of which two and two are near
CENTRES = np.repeat([[1, 0, 0], [1, 0, 1], [0, 1, 0], [0, 1, 1]], 3, axis=0)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Embeddings in four far groups of three classes: whole, in shards, and without labels."""
    folder = tmp_path_factory.mktemp("split")
    rng = np.random.default_rng(0)
    classes = np.repeat(np.arange(12), 5)
    vectors = CENTRES[classes] + 0.05 * rng.standard_normal((60, 3))
    names = [f"{label:02d}/{number}.png" for number, label in enumerate(classes)]
    labels = [f"class {label:02d}" for label in classes]
    whole = Embeddings(names, vectors, labels, root=str(folder / "images"))
    embeddings.write(folder / "whole.h5", whole)
    embeddings.write(folder / "unlabelled.h5", Embeddings(names, vectors))
    embeddings.write(folder / "numbers.h5", Embeddings(names, vectors, 7 * classes))
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(60), 3)):
        embeddings.write(folder / "shards" / f"{number}.h5", whole.take(rows))
    return folder


def group_of(name: bytes) -> int:
    return int(name[:2]) // 3


WORDS = ("--min-classes", 2, "--method", "kmeans:restarts=60", "--threads", 1)


def test_a_list_of_clusters(call, files, tmp_path):
    done = call("cluster-split", files / "whole.h5", "-o", tmp_path / "s.csv", *WORDS, "--json")
    report = json.loads(done.stdout)
    assert report["by_cluster"] == [
        {"cluster": number, "images": 15, "classes": 3} for number in range(4)
    ]
    assert (report["learners"], report["merged"], report["set_aside"]) == (4, 0, 0)
    assert (tmp_path / "s.csv").read_text().splitlines()[0] == "path,name,label,cluster"
    listed = read_csv(tmp_path / "s.csv")
    pairs = set(zip(map(group_of, listed.names), listed.columns["cluster"], strict=True))
    assert len(pairs) == 4
    assert listed.label_names[3] == "class 03"
    assert Path(listed.paths[0]).resolve() == files / "images" / "00" / "0.png"


def test_each_learner_keeps_its_cluster(call, files, tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    call("cluster-split", files / "whole.h5", "-o", first, *WORDS)
    words = [*WORDS, "--seed", 5, "--json", "--previous", first]
    report = json.loads(call("cluster-split", files / "whole.h5", "-o", second, *words).stdout)
    assert (report["in_both"], report["kept"]) == (60, 60)
    assert first.read_bytes() == second.read_bytes()
    step = read_history(second)[-1]
    assert [item["option"] for item in step["inputs"]] == ["embeddings", "--previous"]
    assert [each["command"] for each in read_history(second)] == ["cluster-split"] * 2


def test_clusters_are_doubled(call, files, tmp_path):
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    call("cluster-split", files / "whole.h5", "-o", first, *WORDS, "-k", 2)
    call(
        "cluster-split", files / "whole.h5", "-o", second, *WORDS, "-k", 2, "--previous", first,
        "--double",
    )  # fmt: skip
    before, after = (read_csv(path).columns["cluster"] for path in (first, second))
    np.testing.assert_array_equal(after // 2, before)
    assert set(after.tolist()) == {0, 1, 2, 3}
    assert read_history(second)[-1]["settings"]["double"] is True
    assert "double" not in read_history(first)[-1]["settings"]


def test_small_clusters_are_merged_and_a_learner_is_without_images(call, files, tmp_path):
    words = ("--min-classes", 4, "--method", "kmeans:restarts=60")
    done = call("cluster-split", files / "whole.h5", "-o", tmp_path / "s.csv", *words)
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[:8])
    assert (counts["learners"], counts["clusters"], counts["merged"]) == ("4", "2", "2")
    clusters = read_csv(tmp_path / "s.csv").columns["cluster"]
    groups = [set(clusters[30 * half : 30 * half + 30].tolist()) for half in (0, 1)]
    assert [len(group) for group in groups] == [1, 1]
    assert groups[0] != groups[1]


def test_images_alone_in_their_class_stay_in_the_list(call, tmp_path):
    rng = np.random.default_rng(0)
    vectors = np.repeat(np.eye(4)[:2], 6, axis=0) + 0.01 * rng.standard_normal((12, 4))
    labels = ["a", "a", "b", "b", "c", "d", "d", "d", "e", "e", "c", "f"]
    names = [str(number) for number in range(12)]
    embeddings.write(tmp_path / "e.h5", Embeddings(names, vectors, labels))
    done = call("cluster-split", tmp_path / "e.h5", "-o", tmp_path / "s.csv", "-k", 2, *WORDS)
    assert "set aside                  4" in done.stdout
    clusters = read_csv(tmp_path / "s.csv").columns["cluster"]
    assert np.flatnonzero(clusters < 0).tolist() == [4, 5, 10, 11]


def test_classes_at_random(call, files, tmp_path):
    words = ("--random", "--min-classes", 2)
    paths = [tmp_path / f"{number}.csv" for number in range(3)]
    for path, seed in zip(paths, (0, 0, 1), strict=True):
        call("cluster-split", files / "whole.h5", "-o", path, *words, "--seed", seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    listed = read_csv(paths[0])
    pairs = set(zip(listed.labels.tolist(), listed.columns["cluster"].tolist(), strict=True))
    assert len(pairs) == 12
    step = read_history(paths[0])[-1]
    assert step["settings"] == {"clusters": 4, "random": True, "min_classes": 2, "seed": 0}
    assert "libraries" not in step


def test_shards_and_repetition_change_nothing(call, files, tmp_path):
    contents = set()
    for number, text in enumerate(["whole.h5", "shards", "whole.h5"]):
        path = tmp_path / f"{number}.csv"
        call("cluster-split", files / text, "-o", path, *WORDS)
        contents.add(path.read_bytes())
    assert len(contents) == 1
    sidecars = {(tmp_path / f"{number}.csv.history.json").read_bytes() for number in (0, 2)}
    assert len(sidecars) == 1


def test_labels_that_are_numbers(call, files, tmp_path):
    call("cluster-split", files / "numbers.h5", "-o", tmp_path / "s.csv", *WORDS)
    listed = read_csv(tmp_path / "s.csv")
    assert set(listed.label_names) == {str(7 * label) for label in range(12)}
    assert listed.label_names[listed.labels[-1]] == "77"


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("whole.h5 -o s.csv --min-classes 13", 5, "have 12 classes of two images or more"),
        ("unlabelled.h5 -o s.csv --min-classes 1", 5, "embed a labelled list"),
        ("whole.h5 -o s.csv -k 61", 5, "60 vectors cannot form 61 clusters"),
        ("whole.h5 -o s.csv --previous none.csv", 5, "none.csv"),
        ("whole.h5 -o s.csv --previous list.csv", 5, "no column `cluster`"),
        ("whole.h5 -o s.csv --previous other.csv", 5, "no image of the embeddings"),
        ("whole.h5 -o s.csv --min-classes 1 --previous ninth.csv", 5, "take -k 9"),
        ("missing.h5 -o s.csv", 5, "missing.h5"),
        ("whole.h5 -o s.csv --max-memory 1K", 6, "--max-memory"),
        ("whole.h5 -o s.csv --method dbscan", 2, "take kmeans"),
        ("whole.h5 -o s.csv --method kmeans:k=3", 2, "by -k alone"),
        ("whole.h5 -o s.csv --random --method kmeans:restarts=2", 2, "leave out --method"),
        ("whole.h5 -o s.csv -k 0", 2, "than or equal to 1"),
        ("whole.h5 -o s.h5", 2, "image list (.csv)"),
        ("whole.h5 -o other.csv --previous other.csv", 2, "input and output at once"),
    ],
)
def test_what_is_refused(call, files, monkeypatch, words, status, message):
    monkeypatch.chdir(files)
    Path("list.csv").write_text("path,label\n00/0.png,a\n")
    Path("other.csv").write_text("path,cluster\nelsewhere.png,0\n")
    Path("ninth.csv").write_text("path,name,cluster\nx.png,00/0.png,8\n")
    done = call("cluster-split", *words.split(), status=status)
    assert message in done.stderr
    assert not Path("s.csv").exists()
