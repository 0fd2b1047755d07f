"""Option types: sizes, and the one list of run-time options."""

import pytest

from mltool import options
from mltool.errors import UsageError


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("500M", 500 * 2**20),
        ("4G", 2**32),
        ("4g", 2**32),
        ("4GB", 2**32),
        ("4GiB", 2**32),
        (" 2 K ", 2048),
        ("1.5K", 1536),
        ("1T", 2**40),
        ("1e3", 1000),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert options.parse_size(text) == size


@pytest.mark.parametrize(
    "text", ["", "G", "-1G", "0", "0.1", "4X", "nan", "inf", "infG", "4 G G", "B"]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match="500M or 4G"):
        options.parse_size(text)


def test_run_time_options_are_those_of_the_design() -> None:
    named = {"output", "resume", "workers", "log", "quiet", "verbose", "dry_run", "cache"}
    assert named | {"max_memory"} <= options.RUN_TIME
    assert not options.RUN_TIME & {"seed", "batch_size", "precision", "lr", "epochs", "loss"}
