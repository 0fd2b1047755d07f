"""`train --from-epoch --to-epoch`: a course in several files, as its users call it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mltool.files import embeddings, history, safetensors_file
from mltool.models import checkpoint

Run = Callable[..., subprocess.CompletedProcess]
NETWORK = ("--arch", "test_resnet", "--image-size", 16, "--resize", 16, "--dim", 8)
SHORT = ("-j", 0, "-b", 20, "--threads", 1, "-d", "cpu", "--precision", "fp32", "--limit", 100)
COURSE = ("--epochs", 4, "--schedule", "step", "--warmup", 1, "--ema", 0.5)


@pytest.fixture
def train(tmp_path: Path, run: Run) -> Callable[..., Path]:
    def call(name: str, *words: object) -> Path:
        output = tmp_path / f"{name}.safetensors"
        run("train", "digits:train", *SHORT, *COURSE, "-o", output, *words)
        return output

    return call


def state_of(path: Path) -> dict[str, np.ndarray]:
    return safetensors_file.read(path, select=lambda name: not name.startswith("optimizer."))[0]


def assert_same_weights(one: Path, other: Path) -> None:
    first, second = state_of(one), state_of(other)
    assert first.keys() == second.keys()
    assert all(np.array_equal(value, second[name]) for name, value in first.items())


def test_a_course_in_files_ends_like_one_run(train: Callable[..., Path]) -> None:
    """Rates and frozen statistics of the later files are those of the first, though they --init."""
    whole = train("whole", *NETWORK)
    half = train("half", *NETWORK, "--to-epoch", 1, "--save-optimizer")
    words = ("--init", half, "--keep-optimizer")
    two = train("two", *words, "--from-epoch", 1, "--to-epoch", 3, "--save-optimizer")
    end = train("end", "--init", two, "--keep-optimizer", "--from-epoch", 3)
    assert_same_weights(whole, end)
    last = [history.read(path)[-1]["settings"] for path in (whole, end)]
    added = {"from_epoch": 3, "keep_optimizer": True}
    named = {"arch": last[0]["arch"], "dim": 8}  # said, or of the checkpoint
    assert last[1] | named == last[0] | added
    assert len(history.read(end)) == 3


def test_a_file_with_its_optimiser_is_the_same_model(
    tmp_path: Path, train: Callable[..., Path], run: Run
) -> None:
    words = (*NETWORK, "--to-epoch", 1)
    plain, kept = train("plain", *words), train("kept", *words, "--save-optimizer")
    assert_same_weights(plain, kept)
    vectors = []
    for path in (plain, kept):
        run("embed", path, "digits:test", "--limit", 20, "-j", 0, "-o", path.with_suffix(".h5"))
        vectors.append(embeddings.read(path.with_suffix(".h5")))
        assert vectors[-1].space == checkpoint.read(str(path)).digest
        run("verify", "--full", path)
    assert np.array_equal(vectors[0].vectors, vectors[1].vectors)
    assert vectors[0].space != vectors[1].space  # by the digest of the whole file
    starts = [train(f"from-{path.stem}", "--init", path) for path in (plain, kept)]
    assert_same_weights(*starts)
    facts = [run("info", path).stdout for path in (plain, kept)]
    assert "optimizer: adamw, after epoch 1" in facts[1]
    assert "optimizer" not in facts[0].split("history")[0]


def test_a_file_without_an_optimiser_cannot_be_gone_on_with(
    tmp_path: Path, train: Callable[..., Path], run: Run
) -> None:
    plain, output = train("plain", *NETWORK, "--to-epoch", 1), tmp_path / "next.safetensors"
    words = ("train", "digits:train", *SHORT, *COURSE, "--init", plain, "-o", output)
    done = run(*words, "--keep-optimizer", status=5)
    assert f"{plain} keeps no optimiser; write it again with --save-optimizer" in done.stderr
    done = run(*words, "--from-epoch", 3)
    assert "epoch 3 begins with a fresh optimiser" in done.stderr
    assert "of these the epochs 3 to 3" in done.stderr
