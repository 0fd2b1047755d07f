"""Small data and models for all tests; nothing is downloaded."""

import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from forked_program import ForkServer, Program
from PIL import Image

os.environ["OMP_NUM_THREADS"] = "1"  # two test processes on two cores, and the same bytes always

Start = Callable[..., Program]
Run = Callable[..., subprocess.CompletedProcess]


@pytest.fixture(autouse=True)
def reset_logging() -> Iterator[None]:
    """Take back what a command called in this process did to the program's logger."""
    yield
    logger = logging.getLogger("mltool")
    logger.handlers.clear()
    logger.propagate = True
    logger.setLevel(logging.NOTSET)


@pytest.fixture(scope="session")
def start() -> Iterator[Start]:
    """Start the program in a fork and return it while it runs: `start("train", ...)`."""
    server = ForkServer()
    yield server.start
    server.close()


@pytest.fixture(scope="session")
def run(start: Start) -> Run:
    """Run the program in a fork and check its exit status: `run("embed", ..., status=0)`."""

    def call(
        *words: object, status: int | None = 0, timeout: float = 300, **options: object
    ) -> subprocess.CompletedProcess:
        program = start(*words, **options)
        out, err = program.communicate(timeout)
        assert status is None or program.returncode == status, err
        return subprocess.CompletedProcess(program.args, program.returncode, out, err)

    return call


@pytest.fixture(scope="session")
def spawn() -> Run:
    """Run the program in a new Python, as the shell does; `run` is much faster."""

    def call(
        *words: object, status: int | None = 0, **options: object
    ) -> subprocess.CompletedProcess:
        done = subprocess.run(
            [sys.executable, "-m", "mltool", *map(str, words)],
            capture_output=True, text=True, check=False, timeout=300, **options,
        )  # fmt: skip
        assert status is None or done.returncode == status, done.stderr
        return done

    return call


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a folder of 5 classes x 8 small JPEGs, each class of another colour."""
    folder = tmp_path_factory.mktemp("photos")
    generator = np.random.default_rng(0)
    for number in range(5):
        of_class = folder / f"class{number}"
        of_class.mkdir()
        colour = generator.integers(0, 255, 3)
        for item in range(8):
            noise = generator.integers(-30, 30, (40, 48, 3))
            pixels = (colour + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(of_class / f"{item}.jpg")
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory, photos: Path, run: Run) -> Path:
    """Write the untrained checkpoint of a tiny network."""
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    run("train", photos, "-o", path, *TINY, "--epochs", 0)
    return path


TINY = ("--arch", "test_resnet", "--image-size", 32, "--resize", 32, "--dim", 16, "-j", 0)
