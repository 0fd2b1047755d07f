"""`train` and `embed` as their users call them: outputs, resume, signals, torchrun, history."""

import json
import os
import random
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import typer
from forked_program import Program
from safetensors.numpy import load_file

from mltool.cli import app
from mltool.files import embeddings, history
from mltool.files.shards import read_many
from mltool.models import checkpoint

Run = Callable[..., subprocess.CompletedProcess]
Start = Callable[..., Program]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--dim", 16, "-j", 0)

NAMES = ("loss", "triplet", "proxy-anchor", "val/map@r")


def temporaries(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir() if "mltool-" in p.name or p.suffix == ".partial"]


def test_the_output_has_the_same_bytes_whatever_it_is_called(
    tmp_path: Path, photos: Path, run: Run
) -> None:
    first, second = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    words = ("train", photos, *TINY, "--epochs", 2, "-b", 20)
    run(*words, "-o", first)
    run(*words, "-o", second, "--workers", 2, "--cache", "off", "--log", tmp_path / "log.jsonl")
    assert first.read_bytes() == second.read_bytes()
    assert temporaries(tmp_path) == []


@pytest.mark.slow
def test_training_learns_and_validation_selects(tmp_path: Path, run: Run) -> None:
    out, log, vectors = (tmp_path / name for name in ("m.safetensors", "log.jsonl", "val.h5"))
    data = ("digits:train", "--limit", 200, *TINY, "--augment", "affine", "-o", out)
    terms = ("--loss", "triplet:weight=0.5", "--loss", "proxy-anchor", "--ema", 0.9, "-b", 50)
    run("train", *data, *terms, "--epochs", 4, "--log", log, "--val", "digits:test")
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    values = {name: [x["value"] for x in lines if x["name"] == name] for name in NAMES}
    assert len(values["loss"]) == len(values["triplet"]) == len(values["proxy-anchor"]) == 16
    assert np.mean(values["loss"][-4:]) < np.mean(values["loss"][:4])
    # the file holds the weights of the best epoch, not of the last
    run("embed", out, "digits:test", "-o", vectors)
    best = json.loads(run("evaluate", vectors, "--json").stdout)["map@r"]
    assert best == pytest.approx(max(values["val/map@r"]), abs=0.01)


def test_training_takes_the_first_of_several_views(tmp_path: Path, photos: Path, run: Run) -> None:
    tensors, texts = [], []
    for augment in ("views:small=0", "views:large=3,small=1"):
        out = tmp_path / f"{len(texts)}.safetensors"
        run("train", photos, *TINY, "--epochs", 1, "-b", 20, "--augment", augment, "-o", out)
        tensors.append(load_file(out))
        texts.append(checkpoint.read(str(out)).history[-1]["settings"]["augment"])
    assert tensors[0].keys() == tensors[1].keys()
    assert all(np.array_equal(of, tensors[1][name]) for name, of in tensors[0].items())
    assert texts[1].startswith("views:large=3,small=1,small_size=0.4286,")


def test_resume_after_it_is_done_does_nothing(tmp_path: Path, photos: Path, run: Run) -> None:
    out = tmp_path / "m.safetensors"
    words = ("train", photos, *TINY, "--epochs", 1, "-b", 20, "-o", out, "--resume")
    run(*words)
    before = out.stat().st_mtime_ns
    assert "finished already" in run(*words).stderr
    assert out.stat().st_mtime_ns == before
    run(*words[:-1], "--lr", 0.02, "--resume")
    assert out.stat().st_mtime_ns != before


LONG = (*TINY, "--epochs", 25, "-b", 20, "--save-every", 0.1)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, photos: Path, run: Run) -> bytes:
    """The model of a run of `LONG` that nothing interrupts."""
    path = tmp_path_factory.mktemp("undisturbed") / "whole.safetensors"
    run("train", photos, *LONG, "-o", path)
    return path.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGUSR1])
def test_a_signal_saves_and_resume_ends_in_the_same_bytes(
    tmp_path: Path, photos: Path, undisturbed: bytes, run: Run, start: Start, number: int
) -> None:
    broken = tmp_path / "broken.safetensors"
    process = start("train", photos, *LONG, "-o", broken)
    while not Path(f"{broken}.partial").exists():
        time.sleep(0.02)
        assert process.poll() is None, process.stderr
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 75, err
    assert "--resume" in err
    assert not broken.exists()
    run("train", photos, *LONG, "-o", broken, "--resume")
    assert broken.read_bytes() == undisturbed
    assert temporaries(tmp_path) == []


def test_other_settings_are_refused_on_resume(
    tmp_path: Path, photos: Path, run: Run, start: Start
) -> None:
    out = tmp_path / "m.safetensors"
    words = ("train", photos, *TINY, "--epochs", 200, "-b", 20, "--save-every", 0.1, "-o", out)
    process = start(*words)
    while not Path(f"{out}.partial").exists():
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    done = run(*words, "--lr", 0.5, "--resume", status=5)
    assert "lr: 0.01 -> 0.5" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("command", ["train", "embed"])
def test_kill_at_random_moments_then_resume(
    tmp_path: Path, photos: Path, model: Path, run: Run, start: Start, command: str
) -> None:
    words: tuple[object, ...] = ("train", photos, *TINY, "--epochs", 20, "-b", 20)
    words += ("--save-every", 0.1)
    if command == "embed":
        words = ("embed", model, photos, "-b", 2, "-j", 1)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    began = time.monotonic()
    run(*words, "-o", whole)
    took = time.monotonic() - began
    generator = random.Random(0)
    for _ in range(3):
        process = start(*words, "-o", killed, "--resume")
        time.sleep(generator.uniform(0.4, 1.0) * took)
        process.kill()
        process.communicate()
        if killed.exists():
            run("verify", "--full", killed)
    run(*words, "-o", killed, "--resume")
    assert killed.read_bytes() == whole.read_bytes()
    assert temporaries(tmp_path) == []


def test_shards_are_the_whole(tmp_path: Path, photos: Path, model: Path, run: Run) -> None:
    run("embed", model, photos, "-o", tmp_path / "whole.h5", "-b", 16)
    (tmp_path / "shards").mkdir()
    for number in range(3):
        out = tmp_path / "shards" / f"{number}.h5"
        run("embed", model, photos, "-o", out, "-b", 16, "--shard", f"{number}/3")
    whole = embeddings.read(tmp_path / "whole.h5")
    joined = read_many(sorted(map(str, (tmp_path / "shards").iterdir())))
    assert joined.names.tolist() == whole.names.tolist()
    np.testing.assert_allclose(joined.vectors, whole.vectors, atol=2e-3)  # bf16 rounds by batch
    run("embed", model, photos, "-o", tmp_path / "x.h5", "--shard", "3/3", status=2)


def test_an_embeddings_file_is_an_image_list(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    first, second = tmp_path / "a.h5", tmp_path / "b.h5"
    run("embed", model, photos, "-o", first)
    run("embed", "pixels", first, "-o", second)
    assert embeddings.read(first).names.tolist() == embeddings.read(second).names.tolist()


def test_paths_come_from_standard_input(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    listing = "\n".join(str(path) for path in sorted(photos.rglob("*.jpg")))
    run("embed", model, "-", "-o", tmp_path / "x.h5", input=listing)
    assert len(embeddings.read(tmp_path / "x.h5")) == 40


def test_the_history_says_how_to_do_it_again(
    tmp_path: Path, photos: Path, model: Path, run: Run
) -> None:
    out, raw = tmp_path / "x.h5", tmp_path / "raw.h5"
    run("embed", model, photos, "-o", out)
    run("embed", "pixels", photos, "-o", raw)
    lines = run("info", "--history", out).stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["train", "embed"]
    lines += run("info", "--history", raw).stdout.splitlines()
    assert lines[-1].startswith("mltool embed pixels photos0 ")
    group = typer.main.get_command(app)
    for line in lines:
        command, *words = shlex.split(line)[1:]
        group.commands[command].make_context(command, words)  # type: ignore[attr-defined]
    assert str(tmp_path) not in str(history.read(out))


def test_dry_run_writes_nothing(tmp_path: Path, photos: Path, run: Run) -> None:
    done = run("train", photos, "-o", tmp_path / "m", *TINY, "--dry-run")
    assert "40 images" in done.stderr
    run("embed", "pixels", photos, "-o", tmp_path / "x.h5", "--dry-run")
    run("pack", photos, "-o", tmp_path / "p.h5", "--dry-run")
    assert list(tmp_path.iterdir()) == []


def test_environment_and_config_below_flags(tmp_path: Path, photos: Path, run: Run) -> None:
    config = tmp_path / "run.toml"
    config.write_text("batch-size = 20\n[train]\ndim = 24\nepochs = 0\n")
    out = tmp_path / "m.safetensors"
    words = [w for w in TINY if w not in ("--dim", 16)]
    environment = os.environ | {"MLTOOL_TRAIN_LR": "0.25", "MLTOOL_TRAIN_EPOCHS": "1"}
    run("train", photos, "-o", out, *words, "--config", config, env=environment)
    settings = history.read(out)[-1]["settings"]
    assert isinstance(settings, dict)
    assert (settings["dim"], settings["lr"], settings["batch_size"]) == (24, 0.25, 20)
    assert settings["epochs"] == 1
    config.write_text("epocs = 3\n")
    done = run("train", photos, "-o", out, "--config", config, status=2)
    assert "did you mean epochs" in done.stderr
    run("train", photos, "-o", out, "--config", tmp_path / "none.toml", status=2)


@pytest.mark.slow
def test_torchrun_equals_one_process(tmp_path: Path, photos: Path, run: Run) -> None:
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    words = [
        "train",
        photos,
        *TINY,
        "--epochs",
        2,
        "--freeze-bn",
        "--optimizer",
        "sgd",
        "--lr",
        0.01,
    ]
    run(*words, "-b", 20, "-o", one)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", "--standalone"]
    command += ["-m", "mltool", *map(str, words), "-b", "10", "-o", str(two)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    from mltool.files import safetensors_file

    first, second = safetensors_file.read(one)[0], safetensors_file.read(two)[0]
    assert first.keys() == second.keys()
    start = tmp_path / "start.safetensors"
    run("train", photos, *TINY, "--epochs", 0, "-o", start)
    before = safetensors_file.read(start)[0]
    assert max(np.abs(before[name] - value).max() for name, value in first.items()) > 1e-3
    for name, value in first.items():
        np.testing.assert_allclose(value, second[name], atol=1e-5, err_msg=name)
    assert temporaries(tmp_path) == []
