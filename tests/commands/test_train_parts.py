"""`train --parts --clusters` and `embed --part`, as their users call them."""

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mltool.datasets import open_data
from mltool.files import embeddings, history
from mltool.files.lists.csv_list import write_csv
from mltool.models import checkpoint

Run = Callable[..., subprocess.CompletedProcess]
TINY = ("--arch", "test_resnet", "--image-size", 16, "--resize", 16, "--dim", 8, "-j", 0)
SHORT = (*TINY, "-b", 20, "--epochs", 1, "--threads", 1, "-d", "cpu", "--limit", 100)


def split(path: Path, clusters: int, *, aside: int = 0) -> Path:
    """The first digits in clusters that every class has images in."""
    digits = open_data(["digits:train"], limit=100)
    cluster = np.arange(100) // 5 % clusters
    cluster[:aside] = -1
    write_csv(path, digits, columns={"cluster": cluster})
    return path


def test_learners_of_slices(tmp_path: Path, train: Run, run: Run) -> None:
    clusters, log = split(tmp_path / "s.csv", 4, aside=3), tmp_path / "log.jsonl"
    done = train(
        "--clusters", clusters, "--parts", "slices", "--loss", "proxy-anchor", "--log", log
    )
    assert "slices: 4 of 2-d, 4 with a cluster of" in done.stderr
    assert "3 images have no cluster" in done.stderr
    lines = map(json.loads, log.read_text().splitlines())
    assert sum(line["name"] == "loss" for line in lines) == 5  # as without parts
    model = tmp_path / "m.safetensors"
    step = history.read(model)[-1]
    assert step["settings"]["parts"] == "slices:count=4"
    assert not {"clusters", "full_from", "merge_from"} & step["settings"].keys()
    assert [item["option"] for item in step["inputs"]] == ["data", "--clusters"]
    assert step["counts"] == {"images": 100, "classes": 5, "clusters": 4, "set_aside": 3}
    read = checkpoint.read(str(model))
    assert read.state["parts.in_use"] == 4
    assert read.state["after.weight"].shape == (8, 96)  # one matrix
    assert read.objective["terms.part2/0.term.proxies.weight"].shape == (5, 2)
    assert read.objective["terms.whole/0.term.proxies.weight"].shape == (5, 8)
    files = []
    for words in ((), ("--part", 3)):
        files.append(tmp_path / f"e{len(words)}.h5")
        run("embed", model, "digits:test", "--limit", 30, "-j", 0, *words, "-o", files[-1])
    whole, part = (embeddings.read(path) for path in files)
    assert whole.parts == ((0, 2), (2, 4), (4, 6), (6, 8))
    assert not part.parts
    assert part.space == f"{whole.space}/part-3"
    columns = whole.vectors[:, 6:]
    columns = columns / np.linalg.norm(columns, axis=1, keepdims=True)
    np.testing.assert_allclose(part.vectors, columns, atol=1e-4)
    refused = run("embed", model, "digits:test", "--part", 4, "-o", files[1], status=2)
    assert "the model has parts 0 to 3" in refused.stderr


def test_positivity_asks_the_loss_of_the_whole_vector(tmp_path: Path, train: Run, run: Run) -> None:
    clusters = split(tmp_path / "s.csv", 2)
    train("--clusters", clusters, "--parts", "slices", "--loss", "proxy-anchor")
    words = ("--limit", 60, "--mixup", "embedding", "-j", 0)
    done = run("positivity", tmp_path / "m.safetensors", "digits:train", *words)
    assert "proxy-anchor" in done.stderr + done.stdout


def test_rounds_go_on_with_twice_as_many_learners(tmp_path: Path, train: Run) -> None:
    two, four = split(tmp_path / "two.csv", 2), split(tmp_path / "four.csv", 4)
    masks = ("--parts", "masks:count=4,freeze_epochs=1,lr=0.1")
    train(*masks, name="a")
    assert checkpoint.read(str(tmp_path / "a.safetensors")).state["parts.in_use"] == 0
    train(*masks, "--init", tmp_path / "a.safetensors", "--clusters", two, name="b")
    before = checkpoint.read(str(tmp_path / "b.safetensors")).state
    assert before["parts.in_use"] == 2
    done = train(
        *(*masks, "--init", tmp_path / "b.safetensors", "--clusters", four, "--lr", 1e-9),
        *("--lr-backbone", 0, "--freeze-bn"),
        name="c",
    )
    assert "2 learners become 4" in done.stderr
    after = checkpoint.read(str(tmp_path / "c.safetensors")).state
    assert after["parts.in_use"] == 4
    for learner in range(4):
        apart = after["parts.weight"][learner] - before["parts.weight"][learner // 2]
        assert apart.abs().max() < 2  # of 5 steps of 0.1 each, of which it had one or two
    more = train("--parts", "slices:count=2", "--init", tmp_path / "c.safetensors", name="d")
    assert "slices: 2 of 4-d; the whole vector learns" in more.stderr
    assert checkpoint.read(str(tmp_path / "d.safetensors")).state["parts.in_use"] == 0


def test_without_the_option_nothing_is_recorded(tmp_path: Path, train: Run) -> None:
    train()
    path = tmp_path / "m.safetensors"
    names = history.read(path)[-1]["settings"].keys()
    assert not [name for name in names if "part" in name or "cluster" in name]
    assert "parts" not in checkpoint.read(str(path)).spec.to_dict()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--clusters", "s.csv"], "--clusters needs --parts"),
        (["--parts", "slices"], "say how many"),
        (["--parts", "slices:count=3"], "--dim 8 does not divide into 3 slices"),
        (["--parts", "slices:count=2", "--full-from", 1], "--full-from needs --clusters"),
        (
            ["--parts", "slices", "--clusters", "s", "--full-from", 3, "--merge-from", 2],
            "leave it out",
        ),
        (["--parts", "masks:count=2", "--mining", "hard"], "--mining trains the whole vector"),
        (["--parts", "masks:count=2", "--unlabeled", "u.csv"], "--unlabeled trains"),
        (["--parts", "masks:count=2,lr=1", "--lr-group", "masks=2"], "both name a rate"),
        (["--parts", "slices:count=2", "--lr-group", "masks=2"], "nothing of that name learns"),
        (["--parts", "slices:count=2", "--projection", "conv"], "needs a projection of rows"),
        (["--parts", "halves"], "no component 'halves'"),
    ],
)
def test_refusals(train: Run, words: list[object], message: str) -> None:
    assert message in train(*words, status=2).stderr


def test_lists_that_do_not_fit(tmp_path: Path, train: Run) -> None:
    def refuse(path: Path, parts: str = "masks") -> str:
        return train("--clusters", path, "--parts", parts, status=5).stderr

    plain = tmp_path / "plain.csv"
    write_csv(plain, open_data(["digits:train"], limit=100))
    assert "no image has a cluster" in refuse(plain)
    other = tmp_path / "other.csv"
    write_csv(other, open_data(["digits:test"]), columns={"cluster": np.zeros(896, int)})
    assert "shares no name with DATA" in refuse(other)
    message = refuse(split(tmp_path / "eight.csv", 8), "masks:count=4")
    assert "has 8 clusters, but the model 4 parts" in message


def test_images_missing_from_the_split_have_no_cluster(tmp_path: Path, train: Run) -> None:
    path = tmp_path / "few.csv"
    cluster = np.arange(80) // 5 % 2
    write_csv(path, open_data(["digits:train"], limit=80), columns={"cluster": cluster})
    done = train("--clusters", path, "--parts", "slices", "--full-from", 0)
    assert "20 of 100 images are not in --clusters" in done.stderr
    assert "20 images have no cluster" in done.stderr
