"""Rounds of divide and conquer: a course in two files equals one run; a doubling copies values."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from test_train_parts import SHORT, split

from mltool.files import safetensors_file

Run = Callable[..., subprocess.CompletedProcess]
COURSE = (*SHORT, "--epochs", 4, "--precision", "fp32", "--save-optimizer")


def arrays(path: Path) -> dict[str, np.ndarray]:
    return safetensors_file.read(path)[0]


@pytest.mark.parametrize(
    "words",
    [
        ("--parts", "slices:count=4", "--loss", "proxy-anchor", "--ema", 0.9, "--full-from", 3),
        ("--parts", "masks:count=4", "--memory", 30, "--loss", "contrastive", "--merge-from", 3),
    ],
    ids=["slices", "masks"],
)
@pytest.mark.parametrize("at", [1, 3])
def test_two_runs_take_the_steps_of_one(tmp_path: Path, run: Run, words: tuple, at: int) -> None:
    clusters = split(tmp_path / "s.csv", 3, aside=2)
    words = ("train", "digits:train", *COURSE, *words, "--clusters", clusters)
    one, first, second = (tmp_path / f"{name}.safetensors" for name in ("one", "first", "second"))
    run(*words, "-o", one)
    run(*words, "--to-epoch", at, "-o", first)
    later = ("--init", first, "--keep-optimizer", "--from-epoch", at)
    run(*words, *later, "-o", second)
    whole, again = arrays(one), arrays(second)
    assert whole.keys() == again.keys()
    for name, value in whole.items():
        np.testing.assert_array_equal(again[name], value, err_msg=name)


@pytest.mark.parametrize("kind", ["slices", "masks"])
def test_a_doubling_copies_values_and_forgets_their_moments(
    tmp_path: Path, run: Run, kind: str
) -> None:
    before, after = tmp_path / "b.safetensors", tmp_path / "a.safetensors"
    words = ("train", "digits:train", *COURSE, "--parts", f"{kind}:count=4")
    words += ("--loss", "proxy-anchor", "--optimizer", "adam")
    run(*words, "--clusters", split(tmp_path / "two.csv", 2), "--to-epoch", 2, "-o", before)
    # no rate, no step that moves anything: what is left is what the doubling did
    still = ("--lr", 1e-30, "--lr-backbone", 0, "--lr-proxies", 0, "--from-epoch", 2)
    still += ("--to-epoch", 3, "--init", before, "--keep-optimizer")
    done = run(*words, *still, "--clusters", split(tmp_path / "four.csv", 4), "-o", after)
    assert "2 learners become 4" in done.stderr
    old, new = arrays(before), arrays(after)
    rows = old["after.weight"].reshape(4, 2, -1) if kind == "slices" else old["parts.weight"]
    name = "after.weight" if kind == "slices" else "parts.weight"
    np.testing.assert_allclose(new[name].reshape(rows.shape), rows[[0, 0, 1, 1]], rtol=1e-6)
    for learner in range(4):
        key = "objective.terms.part{}/0.term.proxies.weight"
        np.testing.assert_array_equal(new[key.format(learner)], old[key.format(learner // 2)])
        step = f"optimizer.state.{key.format(learner)}/step"
        assert new[step] in (1, 2)  # its turns in these five steps
    shared = "optimizer.state.model.pooling.p/step"
    assert (old[shared], new[shared]) == (10, 15)
