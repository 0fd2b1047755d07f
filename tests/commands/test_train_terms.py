"""`train` with a memory and with weights of images, as its users call it."""

import csv
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., subprocess.CompletedProcess]
TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--dim", 16, "-j", 0, "-b", 20)


def logged(path: Path, name: str) -> list[float]:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line["value"] for line in lines if line["name"] == name]


def image_list(path: Path, photos: Path, weights: list[str]) -> Path:
    """A list of the photographs with a column `weight`, its cells taken in turn."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["path", "label", "weight"])
        for number, image in enumerate(sorted(photos.rglob("*.jpg"))):
            rows.writerow([image, image.parent.name, weights[number % len(weights)]])
    return path


def test_the_memory_adds_its_term_from_the_second_epoch_on(
    tmp_path: Path, photos: Path, run: Run
) -> None:
    out, log = tmp_path / "m.safetensors", tmp_path / "log.jsonl"
    words = ("train", photos, *TINY, "--loss", "contrastive", "--epochs", 3, "--log", log)
    run(*words, "-o", out, "--memory", 30)
    steps = len(logged(log, "loss"))
    assert len(logged(log, "contrastive/memory")) == steps - steps // 3 - 1
    bare = out.stat().st_size
    run(*words, "-o", out, "--memory", 30_000)
    assert out.stat().st_size < bare + 10_000  # the memory is of the run, not of the model
    run(*words, "-o", out, "--memory", 30, "--memory-start", 0)
    assert len(logged(log, "contrastive/memory")) == steps - 1


def test_weights_of_images_count(tmp_path: Path, photos: Path, run: Run) -> None:
    def losses(*weights: str) -> list[float]:
        data, log = image_list(tmp_path / "list.csv", photos, list(weights)), tmp_path / "l.jsonl"
        words = ("--loss", "contrastive", "--epochs", 1, "--log", log)
        run("train", data, *TINY, *words, "-o", tmp_path / "m.safetensors")
        return logged(log, "loss")

    plain = losses("")
    assert losses("1") == plain
    assert losses("2")[0] == pytest.approx(2 * plain[0], rel=1e-5)
    assert losses("0", "1", "1", "1")[0] not in {0, plain[0]}


@pytest.mark.parametrize("weight", ["-1", "inf"])
def test_impossible_weights_are_refused(
    tmp_path: Path, photos: Path, run: Run, weight: str
) -> None:
    data = image_list(tmp_path / "list.csv", photos, ["1", weight])
    done = run("train", data, *TINY, "-o", tmp_path / "m.safetensors", status=5)
    assert "weight" in done.stderr
    assert "Traceback" not in done.stderr
