"""Provenance: each step once, inputs first, and nothing that differs between equal runs."""

import json
import logging
import shlex
from pathlib import Path

import numpy as np
import pytest

from mltool import __version__
from mltool.errors import InputError
from mltool.files import canonical_json, embeddings, history, safetensors_file
from mltool.files.embeddings import Embeddings


def step(name: str) -> history.Record:
    return history.record(name, inputs=[], settings={}, counts={})


A, B, C, D = map(step, "abcd")


def test_a_record_holds_what_decides_the_result() -> None:
    settings = {"lr": 0.1, "seed": 0}
    found = history.record(
        "train",
        inputs=[("data", "/home/me/cub/", "12"), ("--init", "runs/ssl.safetensors", "34")],
        settings=settings,
        counts={"images": 10},
    )
    assert found == {
        "program": "mltool",
        "version": __version__,
        "command": "train",
        "inputs": [
            {"option": "data", "name": "cub", "digest": "12"},
            {"option": "--init", "name": "ssl.safetensors", "digest": "34"},
        ],
        "settings": {"lr": 0.1, "seed": 0},
        "counts": {"images": 10},
    }


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("cub200:/data/CUB:train", "cub200:CUB:train"),
        ("digits:test", "digits:test"),
        ("-", "-"),
        ("./a/../b.h5", "b.h5"),
    ],
)
def test_no_folder_is_recorded(path: str, name: str) -> None:
    found = history.record("embed", inputs=[("data", path, "")], settings={}, counts={})
    assert found["inputs"] == [{"option": "data", "name": name, "digest": ""}]


def test_each_step_once_and_inputs_before_users() -> None:
    assert history.extend(record=A) == (A,)
    left, right = history.extend((A,), record=B), history.extend((A,), record=C)
    assert history.extend(left, right, record=D) == (A, B, C, D)
    assert history.extend(right, left, record=D) == (A, C, B, D)
    assert history.extend((A, B), record=B) == (A, B)
    assert history.merge() == ()


def test_rounds_grow_linearly() -> None:
    steps: history.History = ()
    for number in range(50):
        teacher = history.extend(steps, record=step(f"train {number}"))
        pseudo = history.extend(teacher, record=step(f"pseudolabel {number}"))
        steps = history.extend(teacher, pseudo, record=step(f"student {number}"))
    assert len(steps) == 150


def write_all(folder: Path) -> dict[str, str]:
    """One file of each kind with the history (A, B), by its digest."""
    found = Embeddings(["a"], np.eye(1), history=(A, B))
    digests = {
        "e.h5": embeddings.write(folder / "e.h5", found),
        "m.safetensors": safetensors_file.write(
            folder / "m.safetensors", {}, meta={"history": [A, B]}
        ),
    }
    (folder / "list.csv").write_text("path\na.jpg\n")
    history.write_sidecar(folder / "list.csv", (A, B))
    return digests


def test_histories_and_digests_of_files(tmp_path: Path) -> None:
    digests = write_all(tmp_path)
    for name in (*digests, "list.csv"):
        assert history.read(tmp_path / name) == (A, B)
    for name, digest in digests.items():
        assert history.digest_of_file(tmp_path / name) == digest
    (tmp_path / "abc").write_text("abc")
    sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert history.digest_of_file(tmp_path / "abc") == sha256
    assert history.read(tmp_path / "abc") == ()
    with pytest.raises(InputError, match="missing"):
        history.read(tmp_path / "missing")


def test_an_input_tells_which_step_made_it(tmp_path: Path) -> None:
    write_all(tmp_path)
    path = str(tmp_path / "e.h5")
    found = history.record("search", inputs=[("db", path, "1")], settings={}, counts={})
    assert found["inputs"] == [
        {"option": "db", "name": "e.h5", "digest": "1", "made_by": canonical_json.digest(B)}
    ]


def test_an_edited_text_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path\na.jpg\n")
    assert history.read_sidecar(path) == ()
    history.write_sidecar(path, (A,))
    assert history.sidecar(path).name == "list.csv.history.json"
    with caplog.at_level(logging.WARNING):
        assert history.read_sidecar(path) == (A,)
        assert not caplog.records
        path.write_text("path\nb.jpg\n")
        assert history.read_sidecar(path) == (A,)
    assert "was edited since" in caplog.text


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "no history"),
        ("{", "no history"),
        ("[]", "no history of mltool"),
        ("{}", "no history of mltool"),
        ("[" * 100_000, "no history"),
        ('{"format":"mltool-history","format_version":2}', "newer mltool"),
        ('{"format":"mltool-history","format_version":1,"history":3}', "not a list of steps"),
        ('{"format":"mltool-history","format_version":1,"history":[3]}', "not a list of steps"),
    ],
)
def test_wrong_sidecars(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "list.csv"
    path.write_text("path\n")
    history.sidecar(path).write_text(text)
    with pytest.raises(InputError, match=message):
        history.read_sidecar(path)


def test_a_sidecar_has_the_same_bytes_every_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / f"{folder}.csv").write_text("path\n")
        history.write_sidecar(tmp_path / folder / f"{folder}.csv", (A,))
    one, two = (tmp_path / f / f"{f}.csv.history.json" for f in ("one", "two"))
    assert one.read_bytes() == two.read_bytes()
    assert json.loads(one.read_text())["history"] == [A]


def test_shell_lines_tell_the_pipeline(tmp_path: Path) -> None:
    train = history.record(
        "train",
        inputs=[("data", "my photos/", "1")],
        settings={"loss": ["triplet:margin=0.1"], "freeze_bn": True, "clip": None, "lr": 0.01},
        counts={},
    )
    model, vectors = tmp_path / "m.tensors", tmp_path / "e.h5"
    safetensors_file.write(model, {}, meta={"history": [train]})
    embed = history.record(
        "embed",
        inputs=[("model", str(model), "2"), ("data", "digits:test", "3")],
        settings={"ema": False},
        counts={},
    )
    steps = history.extend(history.read(model), record=embed)
    embeddings.write(vectors, Embeddings(["a"], np.eye(1), history=steps))
    fit = history.record(
        "whiten fit", inputs=[("--from", str(vectors), "4")], settings={"dim": 8}, counts={}
    )
    lines = history.shell_lines(history.extend(history.read(vectors), record=fit), "w.h5")
    assert [shlex.split(line) for line in lines] == [
        shlex.split(text)
        for text in (
            "mltool train 'my photos' --freeze-bn --loss triplet:margin=0.1 --lr 0.01 -o m.tensors",
            "mltool embed m.tensors digits:test --no-ema -o e.h5",
            "mltool whiten fit --from e.h5 --dim 8 -o w.h5",
        )
    ]
    assert history.shell_lines(()) == []


def test_damaged_histories_in_a_file(tmp_path: Path) -> None:
    safetensors_file.write(tmp_path / "m", {}, meta={"history": "text"})
    with pytest.raises(InputError, match="not a list of steps"):
        history.read(tmp_path / "m")
