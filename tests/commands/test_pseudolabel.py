"""`mltool pseudolabel` from the shell: lists, vectors, filters, reports and refusals."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from sklearn.cluster import DBSCAN

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.history import read as read_history
from mltool.files.lists import image_lists

SPACE = "a" * 64


def make_vectors(seed: int, classes: int = 4, each: int = 6) -> tuple[np.ndarray, list[str]]:
    """Unit vectors around far centres, and the class of each."""
    centres = np.eye(8)[:classes]
    rng = np.random.default_rng(seed)
    vectors = np.repeat(centres, each, axis=0) + 0.1 * rng.standard_normal((classes * each, 8))
    labels = [f"class {number}" for number in range(classes) for _ in range(each)]
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True), labels


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images and their embeddings: whole, in shards, without labels, and of other models."""
    folder = tmp_path_factory.mktemp("pseudolabel")
    (folder / "images").mkdir()
    vectors, labels = make_vectors(0)
    names = [f"{number:02d}.png" for number in range(len(vectors))]
    rng = np.random.default_rng(1)
    for name in names:
        pixels = rng.integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(pixels).resize((40, 40)).save(folder / "images" / name)
    facts = {"space": SPACE, "root": str(folder / "images"), "normalized": True}
    whole = Embeddings(names, vectors, labels, **facts)
    embeddings.write(folder / "whole.h5", whole)
    embeddings.write(folder / "unlabelled.h5", Embeddings(names, vectors, **facts))
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(len(names)), 3)):
        embeddings.write(folder / "shards" / f"{number}.h5", whole.take(rows))
    known, texts = make_vectors(9)
    known_names = [f"k{number}" for number in range(len(known))]
    embeddings.write(folder / "known.h5", Embeddings(known_names, known, texts, space=SPACE))
    other = Embeddings(known_names, known, texts, space="b" * 64)
    embeddings.write(folder / "other.h5", other)
    return folder


def test_a_list_of_clusters(call, files, tmp_path):
    (tmp_path / "below").mkdir()
    output = tmp_path / "below" / "pseudo.csv"
    words = ("--method", "kmeans:k=4,restarts=5")
    done = call("pseudolabel", files / "whole.h5", "-o", output, *words, "--json")
    report = json.loads(done.stdout)
    assert {key: report[key] for key in ("images", "clusters", "smallest", "largest")} == {
        "images": 24, "clusters": 4, "smallest": 6, "largest": 6,
    }  # fmt: skip
    assert [report[key] for key in ("nmi", "ami", "f1", "purity")] == pytest.approx([1.0] * 4)
    assert output.read_text().splitlines()[0] == "path,name,label,confidence,truth"
    listed = image_lists.read(str(output))
    assert all(Path(path).is_file() for path in listed.paths)
    assert listed.label_names == ("cluster-0", "cluster-1", "cluster-2", "cluster-3")
    truth = embeddings.read(files / "whole.h5")
    assert listed.names.tolist() == truth.names.tolist()
    assert listed.columns["truth"].tolist() == [
        truth.label_names[label].encode() for label in truth.labels
    ]
    assert ((listed.columns["confidence"] > 0.5) & (listed.columns["confidence"] <= 1)).all()


def test_the_table_says_what_was_left_out(call, files, tmp_path):
    words = ("--method", "dbscan:eps=0.3,min_samples=3", "--min-size", 3)
    done = call("pseudolabel", files / "whole.h5", "-o", tmp_path / "p.csv", *words)
    counts = dict(line.rsplit(maxsplit=1) for line in done.stdout.splitlines()[:9])
    vectors = embeddings.read(files / "whole.h5").vectors
    labels = DBSCAN(eps=0.3, min_samples=3).fit(vectors).labels_
    sizes = np.bincount(labels[labels >= 0])
    assert int(counts["noise"]) == (labels < 0).sum()
    assert int(counts["below size"]) == sizes[sizes < 3].sum()
    assert int(counts["images"]) == sizes[sizes >= 3].sum()
    assert int(counts["images"]) == len(image_lists.read(str(tmp_path / "p.csv")))


def test_the_nearest_class_of_a_reference(call, files, tmp_path):
    output = tmp_path / "p.csv"
    words = ("--method", "nearest", "--reference", files / "known.h5")
    done = call("pseudolabel", files / "unlabelled.h5", "-o", output, *words)
    assert "nmi" not in done.stdout
    listed = image_lists.read(str(output))
    assert "truth" not in listed.columns
    expected = make_vectors(0)[1]
    assert [listed.label_names[label] for label in listed.labels] == expected
    step = read_history(output)[-1]
    assert [item["option"] for item in step["inputs"]] == ["embeddings", "--reference"]
    assert "libraries" not in step


def test_labels_that_are_numbers(call, tmp_path):
    vectors, texts = make_vectors(0)
    numbers = np.array([10**12 + int(text[-1]) for text in texts])
    numbers[0] = -1
    names = [str(number) for number in range(len(vectors))]
    embeddings.write(tmp_path / "known.h5", Embeddings(names, vectors, numbers))
    words = ("--method", "nearest", "--reference", tmp_path / "known.h5")
    done = call("pseudolabel", tmp_path / "known.h5", "-o", tmp_path / "p.csv", *words)
    assert "which model made the vectors is not known" in done.stderr
    listed = image_lists.read(str(tmp_path / "p.csv"))
    assert listed.label_names == tuple(str(10**12 + number) for number in range(4))
    assert listed.columns["truth"].tolist()[:2] == [b"", b"1000000000000"]
    assert "with truth                23" in done.stdout


def test_filters_are_applied_and_recorded(call, files, tmp_path):
    words = ("--method", "kmeans:k=4", "--seed", 1, "--threads", 1)
    call("pseudolabel", files / "whole.h5", "-o", tmp_path / "all.csv", *words)
    everything = image_lists.read(str(tmp_path / "all.csv")).columns["confidence"]
    least = float(np.sort(everything)[5])
    call(
        "pseudolabel", files / "whole.h5", "-o", tmp_path / "some.csv", *words,
        "--min-confidence", least,
    )  # fmt: skip
    kept = image_lists.read(str(tmp_path / "some.csv")).columns["confidence"]
    assert len(kept) == 19
    before, after = (read_history(tmp_path / name)[-1] for name in ("all.csv", "some.csv"))
    assert before["settings"] == {
        "method": "kmeans:k=4,iterations=20,restarts=1", "seed": 1, "threads": 1,
    }  # fmt: skip
    assert before["libraries"].keys() == {"faiss"}
    assert after["settings"] == before["settings"] | {"min_confidence": least}
    assert after["counts"]["below_confidence"] == 5


def test_shards_globs_and_names_of_outputs_change_nothing(call, files, tmp_path):
    words = ("--method", "kmeans:k=3", "--threads", 1)
    texts = []
    for number, emb in enumerate(["whole.h5", "shards", "shards/*.h5"]):
        output = tmp_path / f"{number}.csv"
        call("pseudolabel", files / emb, "-o", output, *words)
        texts.append(output.read_bytes())
    assert texts[0] == texts[1] == texts[2]
    call("pseudolabel", files / "whole.h5", "-o", tmp_path / "again.csv", *words)
    sidecars = [tmp_path / f"{name}.csv.history.json" for name in ("0", "again")]
    assert sidecars[0].read_bytes() == sidecars[1].read_bytes()


def test_labels_stay_with_their_vectors(call, files, tmp_path):
    output = tmp_path / "pseudo.h5"
    words = ("--method", "dbscan:eps=0.35,min_samples=4")
    call("pseudolabel", files / "shards", "-o", output, *words)
    written, whole = embeddings.read(output), embeddings.read(files / "whole.h5")
    rows = np.flatnonzero(np.isin(whole.names, written.names))
    assert 0 < len(rows) == len(written)
    np.testing.assert_array_equal(written.vectors, whole.vectors[rows])
    assert written.label_names[0] == "cluster-0"
    assert (written.labels >= 0).all()
    assert written.columns.keys() == {"confidence", "truth"}
    assert (written.space, written.metric, written.root) == (SPACE, "cosine", whole.root)
    assert [step["command"] for step in written.history] == ["pseudolabel"]
    call("verify", "--full", output)


def test_a_head_learns_from_pseudo_labels(run, files, tmp_path):
    run("pseudolabel", files / "whole.h5", "-o", tmp_path / "p.h5", "--method", "kmeans:k=4")
    words = ("--arch", "vectors", "--dim", 4, "--epochs", 1, "-b", 8, "-d", "cpu")
    done = run("train", tmp_path / "p.h5", *words, "-o", tmp_path / "head.safetensors")
    assert "24 images, 4 classes" in done.stderr


def test_truth_survives_a_second_clustering(call, files, tmp_path):
    words = ("--method", "kmeans:k=4,restarts=5", "--json")
    call("pseudolabel", files / "whole.h5", "-o", tmp_path / "one.h5", *words)
    done = call("pseudolabel", tmp_path / "one.h5", "-o", tmp_path / "two.csv", *words)
    assert json.loads(done.stdout)["nmi"] == pytest.approx(1.0)
    listed = image_lists.read(str(tmp_path / "two.csv"))
    assert listed.columns["truth"][0] == b"class 0"
    assert len(listed.columns) == 2


def test_images_of_a_test_set_are_counted(call, files, tmp_path):
    (tmp_path / "test").mkdir()
    for name in ("00.png", "07.png"):
        (tmp_path / "test" / name).write_bytes((files / "images" / name).read_bytes())
    smaller = Image.open(files / "images" / "11.png").resize((36, 36), Image.Resampling.BOX)
    smaller.save(tmp_path / "test" / "smaller.png")
    words = ("--method", "kmeans:k=4", "--json", "--check-against")
    done = call(
        "pseudolabel", files / "shards", "-o", tmp_path / "p.csv", *words, tmp_path / "test"
    )
    report = json.loads(done.stdout)
    assert (report["overlap_same"], report["overlap_near"]) == (2, 1)
    assert report["images"] == 24  # counted, not left out
    step = read_history(tmp_path / "p.csv")[-1]
    assert step["counts"]["overlap_same"] == 2
    assert step["inputs"][-1]["option"] == "--check-against"
    done = call(
        "pseudolabel", files / "unlabelled.h5", "-o", tmp_path / "p.csv", *words,
        files / "whole.h5",
    )  # fmt: skip
    assert json.loads(done.stdout)["overlap_same"] == 24  # by vectors of the same model


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        ("whole.h5 -o p.csv --method kmeans:k=25", 5, "24 vectors cannot form 25 clusters"),
        ("whole.h5 -o p.csv --method dbscan:eps=0.001", 5, "no cluster is left of 24 images"),
        ("whole.h5 -o p.csv --method kmeans:k=24 --min-size 2", 5, "no cluster is left"),
        ("whole.h5 -o p.csv --method nearest --reference unlabelled.h5", 5, "holds no labels"),
        ("whole.h5 -o p.csv --method nearest --reference other.h5", 5, "differ in model"),
        ("whole.h5 other.h5 -o p.csv", 5, "differ in model"),
        ("missing.h5 -o p.csv", 5, "missing.h5"),
        ("whole.h5 -o p.csv --method kmeans:k=2 --max-memory 1K", 6, "raise --max-memory"),
        ("whole.h5 -o p.csv --method nearest", 2, "needs --reference"),
        ("whole.h5 -o p.csv --reference known.h5", 2, "takes no --reference"),
        ("whole.h5 -o p.csv --method kmean", 2, "did you mean kmeans"),
        ("whole.h5 -o p.csv --method kmeans:k=0", 2, "1 or more"),
        ("whole.h5 -o p.csv --min-confidence nan", 2, "than or equal to"),
        ("whole.h5 -o p.txt", 2, "image list (.csv) or embeddings (.h5)"),
        ("whole.h5 -o whole.h5", 2, "input and output at once"),
    ],
)
def test_what_is_refused(call, files, monkeypatch, words, status, message):
    monkeypatch.chdir(files)
    done = call("pseudolabel", *words.split(), status=status)
    assert message in done.stderr
    assert not Path("p.csv").exists()


def test_a_file_with_nan_is_named(call, files, tmp_path):
    vectors = make_vectors(0)[0].astype(np.float32)
    rows = Embeddings([str(n) for n in range(24)], vectors)
    embeddings.write(tmp_path / "bad.h5", rows)
    data = bytearray((tmp_path / "bad.h5").read_bytes())
    at = data.index(vectors[3].tobytes())
    data[at : at + 4] = np.float32(np.nan).tobytes()
    (tmp_path / "bad.h5").write_bytes(data)
    for method in ("kmeans:k=2", "dbscan"):
        done = call(
            "pseudolabel", tmp_path / "bad.h5", "-o", tmp_path / "p.csv", "--method", method,
            status=5,
        )  # fmt: skip
        assert "bad.h5" in done.stderr
        assert "not finite" in done.stderr
