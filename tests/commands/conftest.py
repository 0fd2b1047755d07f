"""The program called in this process, as the shell would call it."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from mltool.cli import app

Call = Callable[..., Result]


@pytest.fixture(scope="session")
def call() -> Call:
    """Run a command and check its exit status: `call("search", db, queries, status=0)`."""

    def invoke(*words: object, status: int = 0, **options: object) -> Result:
        done = CliRunner().invoke(app, [str(word) for word in words], **options)
        assert done.exit_code == status, (done.output, done.exception)
        return done

    return invoke


@pytest.fixture
def train(
    tmp_path: Path, run: Callable[..., subprocess.CompletedProcess], request: pytest.FixtureRequest
) -> Callable[..., subprocess.CompletedProcess]:
    """Train on digits with the words SHORT of the test's module; `name` is that of the model."""

    def call(*words: object, name: str = "m", **options: object) -> subprocess.CompletedProcess:
        output = tmp_path / f"{name}.safetensors"
        short = request.module.SHORT
        return run("train", "digits:train", *short, "-o", output, *words, **options)

    return call
