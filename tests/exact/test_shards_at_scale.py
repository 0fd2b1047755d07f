"""Many files as one: the same numbers as one file, without their vectors in memory."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from mltool.files import embeddings
from mltool.files.embeddings import Embeddings

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ROWS, DIM, PARTS = 60_000, 512, 3  # 117 MiB
CODE = """
import re, sys
from pathlib import Path
from mltool.cli import app
app(sys.argv[1:], standalone_mode=False)
# the peak of this process alone: ru_maxrss also knows that of the one it was forked from
print(int(re.search("VmHWM:\\s*(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scale")
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2000, ROWS)
    vectors = generator.standard_normal((2000, DIM), np.float32)[labels]
    vectors += 2 * generator.standard_normal((ROWS, DIM), np.float32)
    names = np.array([f"{n:06d}" for n in range(ROWS)], "S")
    whole = Embeddings(names, vectors, labels, space="m")
    embeddings.write(folder / "whole.h5", whole)
    (folder / "parts").mkdir()
    for number, rows in enumerate(np.array_split(np.arange(ROWS), PARTS)):
        part = replace(whole, names=names[rows], vectors=vectors[rows], labels=labels[rows])
        embeddings.write(folder / "parts" / f"{number}.h5", part)
    few = replace(whole, names=names[:300], vectors=vectors[:300] + 0.1, labels=labels[:300])
    embeddings.write(folder / "queries.h5", few)
    return folder


def called(*words):
    done = subprocess.run(
        [sys.executable, "-c", CODE, *map(str, words)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    *text, peak = done.stdout.splitlines()
    return text, float(peak)


def test_evaluate_reads_shards_without_holding_them(folder):
    little = ("--max-memory", "40M", "--json", "-q")
    _, base = called("evaluate", folder / "queries.h5", *little)
    one, _ = called("evaluate", folder / "queries.h5", folder / "whole.h5", *little)
    some, peak = called("evaluate", folder / "queries.h5", folder / "parts", *little)
    assert some == one
    assert json.loads(some[0])["gallery"] == ROWS
    # beside the limit: one block of the map, names, labels and codes; not the 117 MiB of vectors
    assert peak < base + 40 + 90


def test_search_reads_shards_without_holding_them(folder):
    little = ("--max-memory", "40M", "-q")
    _, base = called("search", folder / "queries.h5", folder / "queries.h5", *little)
    one, _ = called("search", folder / "whole.h5", folder / "queries.h5", *little)
    some, peak = called("search", folder / "parts" / "*.h5", folder / "queries.h5", *little)
    assert some == one
    assert peak < base + 40 + 90
