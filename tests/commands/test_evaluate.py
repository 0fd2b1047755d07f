"""`mltool evaluate` from the shell: tables, JSON, files, and what it refuses."""

import csv
import json
import subprocess
import sys

import numpy as np
import pytest

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.history import read as read_history


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluate")
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(6), 5)
    vectors = rng.standard_normal((6, 8))[labels] + 0.6 * rng.standard_normal((30, 8))
    names = [f"c{label}/im {row}.jpg" for row, label in enumerate(labels)]
    texts = [f"class {label}" for label in labels]
    whole = Embeddings(names, vectors, texts, space="a" * 64)
    embeddings.write(folder / "whole.h5", whole)
    (folder / "shards").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(30), 3)):
        part = Embeddings(
            whole.names[rows], whole.vectors[rows], np.array(texts)[rows], space="a" * 64
        )
        embeddings.write(folder / "shards" / f"part-{number}.h5", part)
    other = Embeddings([f"g{row}" for row in range(30)], vectors, texts, space="b" * 64)
    embeddings.write(folder / "other.h5", other)
    narrow = Embeddings(names, vectors[:, :3], texts)
    embeddings.write(folder / "narrow.h5", narrow)
    return folder


def test_a_table_of_metrics_and_counts(call, files):
    lines = call("evaluate", files / "whole.h5").stdout.splitlines()
    assert [line.split("  ")[0] for line in lines] == [
        "precision@1",
        "recall@10",
        "r_precision",
        "map@r",
        "",
        "queries",
        "without positives",
        "gallery",
        "self removed",
        "ties",
        "classes",
    ]
    assert lines[0].endswith("%")


def test_json_holds_fractions_and_counts(call, files):
    done = call("evaluate", files / "whole.h5", "--json", "--metrics", "map,recall@2,nmi")
    report = json.loads(done.stdout)
    assert {"map", "recall@2", "nmi", "queries", "ties"} <= set(report)
    assert 0 < report["map"] < 1
    assert report["queries"] == 30


def test_shards_are_read_as_one_file(call, files):
    one = call("evaluate", files / "whole.h5", "--json").stdout
    assert call("evaluate", files / "shards", "--json").stdout == one
    assert call("evaluate", files / "shards" / "part-*.h5", "--json").stdout == one


def test_undefined_is_null(call, files, tmp_path):
    lone = Embeddings(["a", "b"], np.eye(2), ["x", "y"])
    embeddings.write(tmp_path / "lone.h5", lone)
    done = call("evaluate", tmp_path / "lone.h5", "--json")
    assert json.loads(done.stdout)["map@r"] is None
    assert "no query has a relevant row" in done.stderr


def test_files_of_values_hits_and_the_report(call, files, tmp_path):
    done = call(
        "evaluate",
        files / "whole.h5",
        *("--per-query", tmp_path / "query.csv", "--per-class", tmp_path / "class.csv"),
        *("--run", tmp_path / "hits.run", "-o", tmp_path / "report.json", "--json"),
        *("--bootstrap", "20"),
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report == json.loads(done.stdout)
    low, high = report["intervals"]["map@r"]
    assert low <= report["map@r"] <= high
    with open(tmp_path / "query.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 30
    mean = np.mean([float(row["map@r"]) for row in rows])
    assert mean == pytest.approx(report["map@r"])
    assert rows[7]["label"] == "class 1"
    with open(tmp_path / "class.csv", newline="") as file:
        assert [row["queries"] for row in csv.DictReader(file)] == ["5"] * 6
    for name in ("query.csv", "class.csv", "hits.run", "report.json"):
        history = json.loads((tmp_path / f"{name}.history.json").read_text())["history"]
        assert history[-1]["command"] == "evaluate"
        assert "max_memory" not in history[-1]["settings"]


def test_a_trec_run_gives_the_metrics_again(call, files, tmp_path):
    report = json.loads(
        call("evaluate", files / "whole.h5", "--run", tmp_path / "r.run", "--json").stdout
    )
    ranked = {}
    for line in (tmp_path / "r.run").read_text().splitlines():
        query, q0, name, rank, score, tag = line.split(" ")
        assert (q0, tag) == ("Q0", "mltool")
        ranked.setdefault(query, []).append((int(rank), -float(score), name))
    assert len(ranked) == 30
    first = 0
    for query, hits in ranked.items():
        assert hits == sorted(hits)
        assert [rank for rank, _, _ in hits] == list(range(1, 30))
        first += hits[0][2].split("/")[0] == query.split("/")[0]
    assert first / 30 == pytest.approx(report["precision@1"])


def test_the_same_call_gives_the_same_bytes(call, files, tmp_path):
    for name in ("one.json", "two.json"):
        call(
            "evaluate",
            files / "whole.h5",
            "--metrics",
            "map,nmi,f1",
            "--bootstrap",
            9,
            "-o",
            tmp_path / name,
        )
    assert (tmp_path / "one.json").read_bytes() == (tmp_path / "two.json").read_bytes()


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["nothing.h5"], 5, "nothing.h5"),
        (["whole.h5", "narrow.h5"], 5, "queries are 8-d vectors, but the gallery holds 3-d ones"),
        (["whole.h5", "other.h5"], 5, "say --any-model"),
        (["whole.h5", "--metrics", "map@x"], 2, "no metric 'map@x'"),
        (["whole.h5", "--metrics", ""], 2, "no metric"),
        (["whole.h5", "--max-memory", "1K"], 6, "raise --max-memory"),
        (["whole.h5", "--max-memory", "much"], 2, "is not a size"),
        (["whole.h5", "--bootstrap", "-1"], 2, "greater than or equal to 0"),
        (["whole.h5", "--device", "tpu"], 2, "no device 'tpu'"),
        (["whole.h5", "-o", "nowhere/x.json"], 6, "nowhere"),
    ],
)
def test_what_is_refused(call, files, monkeypatch, words, status, message):
    monkeypatch.chdir(files)
    done = call("evaluate", *words, status=status)
    assert message in done.stderr
    assert done.stdout == ""


def test_another_model_on_request(call, files):
    report = call(
        "evaluate", files / "whole.h5", files / "other.h5", "--any-model", "--json"
    ).stdout
    assert json.loads(report)["self_removed"] == 0


def test_small_work_imports_neither_torch_nor_scikit_learn(files):
    code = (
        "import sys; from typer.testing import CliRunner; from mltool.cli import app;"
        f"assert not CliRunner().invoke(app, ['evaluate', {str(files / 'whole.h5')!r}]).exit_code;"
        "print({'torch', 'sklearn', 'faiss', 'matplotlib', 'rich'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


def test_queries_are_classified_by_a_gallery(call, files, tmp_path):
    read = embeddings.read(files / "whole.h5")
    odd = np.arange(30) % 2 == 1
    for name, rows in {"train": ~odd, "test": odd}.items():
        embeddings.write(tmp_path / f"{name}.h5", read.take(rows))
    words = ("evaluate", tmp_path / "test.h5", tmp_path / "train.h5")
    metrics = "knn-accuracy@1,precision@1,linear-accuracy"
    done = call(*words, "--metrics", metrics, "--json", "--per-query", tmp_path / "q.csv")
    report = json.loads(done.stdout)
    assert report["knn-accuracy@1"] == report["precision@1"]  # one neighbour decides alone
    rows = list(csv.DictReader((tmp_path / "q.csv").read_text().splitlines()))
    values = [float(row["linear-accuracy"]) for row in rows]
    assert set(values) <= {0.0, 1.0}
    assert np.mean(values) == pytest.approx(report["linear-accuracy"])


def test_parts_of_vectors(call, files, tmp_path):
    whole = embeddings.read(files / "whole.h5")
    facts = {"labels": [whole.label_names[n] for n in whole.labels], "space": whole.space}
    bounds = ((0, 4), (4, 8))
    embeddings.write(
        tmp_path / "parts.h5", Embeddings(whole.names, whole.vectors, parts=bounds, **facts)
    )
    halves = []
    for number, (start, stop) in enumerate(bounds):
        path = tmp_path / f"{number}.h5"
        half = np.ascontiguousarray(whole.vectors[:, start:stop])
        embeddings.write(path, Embeddings(whole.names, half, **facts))
        halves.append(path)
    call("concat", *halves, "-o", tmp_path / "joined.h5")
    for part, alone in [("0", halves[0]), ("1", halves[1]), ("all", tmp_path / "joined.h5")]:
        done = call("evaluate", tmp_path / "parts.h5", "--part", part, "--json")
        assert json.loads(done.stdout) == json.loads(call("evaluate", alone, "--json").stdout)
    both = call("evaluate", tmp_path / "parts.h5", "--json").stdout
    assert json.loads(both) == json.loads(call("evaluate", files / "whole.h5", "--json").stdout)
    report = tmp_path / "r.json"
    call("evaluate", tmp_path / "parts.h5", tmp_path / "parts.h5", "--part", 1, "-o", report)
    assert read_history(report)[-1]["settings"]["part"] == "1"
    call("evaluate", tmp_path / "parts.h5", "--part", 2, status=5)
    call("evaluate", tmp_path / "parts.h5", files / "whole.h5", "--part", 1, status=5)
    call("evaluate", tmp_path / "parts.h5", "--part", "half", status=2)
    call("evaluate", tmp_path / "parts.h5", "--part", "all", "--max-memory", "1K", status=6)
