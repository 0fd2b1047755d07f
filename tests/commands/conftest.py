"""The program called in this process, as the shell would call it."""

from collections.abc import Callable

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
