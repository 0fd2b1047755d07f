"""The example at the head of every file of `exact/` holds."""

import doctest
import importlib
from pathlib import Path

import pytest

from mltool import exact

NAMES = sorted(path.stem for path in Path(exact.__file__).parent.glob("[!_]*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_the_example_holds(name: str) -> None:
    result = doctest.testmod(importlib.import_module(f"mltool.exact.{name}"))
    assert result.failed == 0
    assert result.attempted > 0 or name == "query_block"  # its example is a table
