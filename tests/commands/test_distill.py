"""`distill` as its users call it: teacher, student, asymmetric testing; and what it refuses."""

import json
import os
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from forked_program import Program
from typer.testing import Result

from mltool.cli import app
from mltool.files import embeddings, safetensors_file
from mltool.files.embeddings import Embeddings

Run = Callable[..., subprocess.CompletedProcess]
Start = Callable[..., Program]
Call = Callable[..., Result]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "-j", 0, "--threads", 1)
SHORT = ("--epochs", 2, "-b", 20)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory, photos: Path, call: Call) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("teacher")
    paths = {name: folder / f"{name}.h5" for name in ("vectors", "views", "gallery")}
    paths["model"] = folder / "model.safetensors"
    call("train", photos, *TINY, "--dim", 16, *SHORT, "-o", paths["model"])
    call("embed", paths["model"], photos, "-o", paths["vectors"])
    call("embed", paths["model"], photos, "-o", paths["views"], "--views", 2, "--seed", 3)
    return paths


@pytest.mark.slow
def test_the_pipeline_ends_in_asymmetric_testing(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    student, queries = tmp_path / "s.safetensors", tmp_path / "q.h5"
    words = ("distill", photos, "--teacher", teacher["vectors"], *TINY)
    done = call(*words, "--epochs", 40, "-b", 20, "--loss", "regression", "-o", student)
    assert "all 40 images found among 40 vectors" in done.stderr
    call("embed", student, photos, "-o", queries)
    both = call("evaluate", queries, teacher["vectors"], "--json", "--keep-self")
    assert json.loads(both.stdout)["precision@1"] > 0.8
    pixels = tmp_path / "pixels.h5"
    call("embed", "pixels", photos, "-o", pixels, "--image-size", 4)
    assert "evaluate" not in call("evaluate", queries, pixels, status=5).stdout
    penultimate = tmp_path / "p.h5"
    call("embed", student, photos, "-o", penultimate, "--penultimate")
    call("evaluate", penultimate, teacher["vectors"], status=5)


def test_a_relational_student_declares_nothing(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    student, queries = tmp_path / "s.safetensors", tmp_path / "q.h5"
    words = ("distill", photos, "-t", teacher["vectors"], *TINY, *SHORT, "--dim", 16)
    call(*words, "--loss", "rkd", "--normalize", "-o", student)
    call("embed", student, photos, "-o", queries)
    done = call("evaluate", queries, teacher["vectors"], status=5)
    assert "made by model" in done.stderr
    call("evaluate", queries, teacher["vectors"], "--any-model")


def test_the_history_says_how_to_do_it_again(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    student = tmp_path / "s.safetensors"
    words = ("distill", photos, "-t", teacher["views"], *TINY, *SHORT, "--augment", "crop")
    call(*words, "--loss", "contrastive+:weight=2", "--loss", "darkrank", "-o", student)
    lines = call("info", "--history", student).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["train", "embed", "distill"]
    group = typer.main.get_command(app)
    for line in lines:
        command, *rest = shlex.split(line)[1:]
        group.commands[command].make_context(command, rest)  # type: ignore[attr-defined]
    assert "--views 2" in lines[1]
    assert "--teacher views.h5" in lines[2]


@pytest.mark.slow
def test_a_killed_lesson_is_resumed_to_the_same_bytes(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], run: Run, start: Start
) -> None:
    words = ["distill", photos, "-t", teacher["vectors"], *TINY, "--epochs", 30, "-b", 10]
    words += ["--mining", "hard", "--queries", 20, "--negatives", 2, "--save-every", 0.1]
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    for number, status in ((signal.SIGTERM, 75), (signal.SIGKILL, -9)):
        process = start(*words, "-o", broken, "--resume")
        before = Path(f"{broken}.partial")
        mark = before.stat().st_mtime_ns if before.exists() else 0
        while not (before.exists() and before.stat().st_mtime_ns > mark):
            time.sleep(0.02)
            assert process.poll() is None, process.communicate()
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == status, err
    run(*words, "-o", broken, "--resume")
    run(*words, "-o", whole)
    assert broken.read_bytes() == whole.read_bytes()


@pytest.mark.slow
def test_two_tasks_of_srun_equal_one_process(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], run: Run, start: Start
) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    words = ["distill", photos, "-t", teacher["model"], *TINY, "--epochs", 2, "--freeze-bn"]
    words += ["--optimizer", "sgd", "--lr", 0.01, "--loss", "contrastive+"]
    run(*words, "-b", 20, "-o", one)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    tasks = [
        start(*words, "-b", 10, "-o", two, env=os.environ | task | {"MASTER_PORT": port})
        for task in (
            {"SLURM_STEP_ID": "0", "SLURM_NTASKS": "2", "SLURM_PROCID": rank, "SLURM_LOCALID": rank}
            for rank in ("0", "1")
        )
    ]
    for task in tasks:
        _, err = task.communicate(timeout=120)
        assert task.returncode == 0, err
    first, second = safetensors_file.read(str(one))[0], safetensors_file.read(str(two))[0]
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], atol=1e-5, err_msg=name)


def test_bad_input(tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call) -> None:
    out = tmp_path / "s.safetensors"
    found = embeddings.read(teacher["vectors"])
    half, empty, nan = (tmp_path / f"{name}.h5" for name in ("half", "empty", "nan"))
    embeddings.write(half, Embeddings(found.names[:20], found.vectors[:20]))
    embeddings.write(empty, Embeddings(found.names[:0], found.vectors[:0]))
    vectors = np.array(found.vectors)
    embeddings.write(nan, Embeddings(found.names, vectors))
    data = bytearray(nan.read_bytes())
    start = data.index(vectors[7].tobytes())
    data[start : start + 4] = np.float32(np.nan).tobytes()
    nan.write_bytes(data)
    before = sorted(tmp_path.iterdir())
    for words, status, message in (
        (["-t", half], 5, "lacks 20 of 40 images"),
        (["-t", empty], 5, "lacks 40 of 40 images"),
        (["-t", nan], 5, found.names[7].decode()),
        (["-t", tmp_path / "none.h5"], 5, "none.h5"),
        (["-t", photos], 5, "names no .h5 file"),
        (["-t", teacher["views"]], 0, "embedded with"),
        (["-t", teacher["views"], "--augment", "center"], 2, "--augment crop"),
        (["-t", teacher["vectors"], "--dim", 8], 2, "16-d"),
        (["-t", teacher["vectors"], "--queries", 0], 2, "greater than or equal to 1"),
        (["-t", teacher["vectors"], "--negatives", 3], 2, "--negatives needs --mining"),
        (["-t", teacher["vectors"], "--mining", "hard", "--images-per-class", 2], 2, "--mining ch"),
        (["-t", "timm:resnet51"], 2, "did you mean"),
        ([], 2, "--teacher"),
        (
            ["-t", teacher["vectors"], "--dim", 8, "--loss", "pkt", "--symmetric"],
            2,
            "--symmetric says",
        ),
        (["-t", teacher["vectors"], "--loss", "pkt", "--positives", "self"], 2, "its own, or none"),
        (["-t", teacher["vectors"], "--loss", "regression", "-b", 1], 2, "--freeze-bn"),
        (
            ["-t", teacher["model"], "--teacher-weights", "timm"],
            2,
            "--teacher-weights is for timm:",
        ),
    ):
        done = call("distill", photos, *TINY, *SHORT, *words, "-o", out, status=status)
        if status:
            assert message in done.stderr
            assert sorted(tmp_path.iterdir()) == before
        else:
            out.unlink()


def test_a_teacher_that_left_out_bad_images_teaches_the_others(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    names = [p.relative_to(photos) for p in sorted(photos.glob("*/*"))]
    (tmp_path / "bad.jpg").write_bytes(b"no image")
    listed = tmp_path / "list.csv"
    rows = [f"{photos / name},{name.parent}" for name in names] + [f"{tmp_path / 'bad.jpg'},x"]
    listed.write_text("\n".join(["path,label", *rows]) + "\n")
    vectors, skip = tmp_path / "t.h5", ("--on-bad-image", "ignore")
    call("embed", teacher["model"], listed, *skip, "-o", vectors)
    words = ("distill", listed, "-t", vectors, *TINY, "--epochs", 1, "-b", 20)
    assert "lacks 1 of" in call(*words, "-o", tmp_path / "s.safetensors", status=5).stderr
    call(*words, *skip, "-o", tmp_path / "s.safetensors")


def test_what_cannot_weight_images_refuses_their_weights(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    listed = tmp_path / "list.csv"
    rows = [f"{p},{p.parent.name},0.5" for p in sorted(photos.glob("*/*"))]
    listed.write_text("\n".join(["path,label,weight", *rows]) + "\n")
    words = ("distill", listed, "-t", teacher["model"], *TINY, "--epochs", 1, "-b", 20)
    for loss in ("pkt", "n-pair"):
        both = ("--loss", "contrastive+", "--loss", loss)
        done = call(*words, *both, "-o", tmp_path / "s.safetensors", status=2)
        assert f"--loss {loss} has no pairs and cannot weight images" in done.stderr
    call(*words, "-o", tmp_path / "s.safetensors")


def test_positivity_of_what_was_mined_or_distilled(
    tmp_path: Path, photos: Path, teacher: dict[str, Path], call: Call
) -> None:
    out, few = tmp_path / "m.safetensors", ("-b", 20, "-j", 0, "--batches", 1)
    words = (*TINY, *SHORT, "--dim", 8, "-o", out)
    losses = ("--loss", "contrastive", "--loss", "margin:learn=class")
    call("train", photos, *words, "--mining", "hard", "--negatives", 2, *losses)
    done = call("positivity", out, photos, *few, "--loss", "margin:learn=class", "--json")
    assert json.loads(done.stdout)["loss"].startswith("margin:")
    call("train", photos, *words, "--miner", "hard")
    found = json.loads(call("positivity", out, photos, *few, "--json").stdout)
    assert (found["miner"], found["examples"]) == ("hard", 20)
    call("distill", photos, "-t", teacher["vectors"], *TINY, *SHORT, "-o", out)
    found = json.loads(call("positivity", out, photos, *few, "--json").stdout)
    assert found["loss"].startswith("contrastive:")
    call("distill", photos, "-t", teacher["vectors"], *words, "--loss", "pkt")
    done = call("positivity", out, photos, *few, status=2)
    assert "has no pairs; add --loss" in done.stderr
    (tmp_path / "list.csv").write_text(f"path\n{sorted(photos.glob('*/*'))[0]}\n")
    done = call("positivity", out, tmp_path / "list.csv", *few, "--loss", "triplet", status=5)
    assert "list.csv: no image has a label" in done.stderr


def test_train_with_mined_tuples(tmp_path: Path, photos: Path, call: Call) -> None:
    out = tmp_path / "m.safetensors"
    words = ("train", photos, *TINY, *SHORT, "--dim", 8, "--mining", "hard", "-o", out)
    done = call(*words, "--negatives", 3, "--loss", "contrastive:margin=0.7,form=squared")
    assert "4 x 5 images" in done.stderr
    for more, message in (
        (["--miner", "hard"], "--miner"),
        (["--classes-per-batch", 4], "--mining chooses the batches"),
        (["--mining", "none", "--pool", 9], "--pool needs --mining"),
        (["--mining", "none", "--memory-weight", 2], "--memory-weight needs --memory"),
        (["--small-classes", "skip"], "--mining chooses the batches"),
    ):
        assert message in call(*words, *more, status=2).stderr
    call("embed", out, photos, "-o", tmp_path / "x.h5")
