"""Whole distillations: what is learned, resumed to the same bytes, and the same on two ranks."""

import json
import logging
import os
import random
import signal
import socket
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_distillations import learn, make_teacher
from tiny_runs import Child
from torch import nn

from mltool.commands import distill
from mltool.engine import loop
from mltool.engine.objectives.objective import Objective
from mltool.engine.teachers import CachedTeacher, OnlineTeacher
from mltool.errors import InputError, Interrupted, UsageError
from mltool.files import embeddings, safetensors_file
from mltool.files.embeddings import Embeddings
from mltool.models import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    torch.set_num_threads(1)
    return make_teacher(tmp_path_factory.mktemp("teacher"))


MINED = {"mining": "hard", "pool": 80, "queries": 30, "negatives": 3, "batch_size": 10}
ADDED = "embedding:pairs=pos-neg+anchor-neg"
LESSONS = {
    "regression": (["regression"], {}),
    "contrastive+": (["contrastive+"], {}),
    "relaxed": (["relaxed-contrastive:weight=0.01"], {"views": 2, "images_per_class": 2}),
    "mixed": (["rkd:angle=0,weight=2", "proxy-anchor:weight=0.1"], {}),
    "neighbors": (["pkt:weight=1000"], {"neighbors": 5}),
    "mined": (["contrastive+"], MINED),
    "mined-symmetric": (["multi-similarity", "darkrank"], MINED | {"symmetric": True}),
    "crd": (["crd:negatives=20", "proxy-anchor"], {"online": True}),
    "additions": (
        ["contrastive:margin=0.7", "pkt:weight=10"],
        {"images_per_class": 4, "miner": "random", "memory": 30, "mixup": ADDED},
    ),
    "additions-symmetric": (
        ["contrastive", "relaxed-contrastive:weight=0.01"],
        {"images_per_class": 4, "symmetric": True, "memory": 30, "mixup": "feature"},
    ),
    "maps": (
        ["fitnet", "attention:weight=10"],
        {"online": True, "stages": 3, "projection": "none"},
    ),
}


def lesson(output: Path, teacher: dict[str, Path], name: str, **changes) -> bytes:
    losses, settings = LESSONS[name]
    settings = settings | changes
    of = teacher["t.safetensors" if settings.pop("online", False) else "t.h5"]
    return learn(output, of, *losses, **settings)


def interrupting(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """A signal in the n-th step from now on."""
    forward, seen = Objective.forward, []

    def both(self, streams, model, moment):
        seen.append(1)
        if len(seen) == step:
            os.kill(os.getpid(), signal.SIGUSR1)
        return forward(self, streams, model, moment)

    monkeypatch.setattr(Objective, "forward", both)


@pytest.mark.parametrize("name", LESSONS)
def test_an_interrupted_lesson_ends_with_the_same_bytes(
    tmp_path: Path, teacher: dict[str, Path], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = lesson(tmp_path / "whole", teacher, name)
    broken = tmp_path / "broken"
    for at in (2, 1):  # in mid-epoch, and in another step further on
        with monkeypatch.context() as patch:
            interrupting(patch, at)
            with pytest.raises(Interrupted):
                lesson(broken, teacher, name, resume=True)
    assert lesson(broken, teacher, name, resume=True) == expected
    assert not Path(f"{broken}.partial").exists()


def test_a_lesson_killed_at_random_moments_ends_with_the_same_bytes(
    tmp_path: Path, teacher: dict[str, Path]
) -> None:
    began = time.monotonic()
    expected = lesson(tmp_path / "whole", teacher, "mined", epochs=4)
    took = time.monotonic() - began
    generator, killed = random.Random(0), tmp_path / "killed"
    settings = {"epochs": 4, "resume": True, "save_every": 0.0}
    for _ in range(4):
        child = Child(lambda: lesson(killed, teacher, "mined", **settings))
        time.sleep(generator.uniform(0.2, 0.8) * took)
        os.kill(child.pid, signal.SIGKILL)
        assert child.wait()[0] in (0, -signal.SIGKILL)
    assert lesson(killed, teacher, "mined", **settings) == expected


def together(work: Callable[[], object]) -> None:
    """Two processes that torchrun would have started."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])

    def ranked(rank: int) -> Callable[[], None]:
        def body() -> None:
            os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
            work()

        return body

    for status, message in [child.wait() for child in [Child(ranked(0)), Child(ranked(1))]]:
        assert status == 0, message


@pytest.mark.parametrize("name", sorted(LESSONS.keys() - {"regression"}))
def test_two_processes_equal_one(tmp_path: Path, teacher: dict[str, Path], name: str) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    size = LESSONS[name][1].get("batch_size", 20)
    # in float64, where a rounding error does not choose another hardest negative
    how = {"freeze_bn": True, "precision": "fp64"}
    lesson(one, teacher, name, **how)
    together(lambda: lesson(two, teacher, name, batch_size=size // 2, **how))
    first, second = safetensors_file.read(str(one))[0], safetensors_file.read(str(two))[0]
    lesson(tmp_path / "start", teacher, name, epochs=0, **how)
    start = safetensors_file.read(str(tmp_path / "start"))[0]
    assert max(np.abs(start[key] - value).max() for key, value in first.items()) > 1e-4
    for key, value in first.items():
        np.testing.assert_allclose(value, second[key], rtol=0, atol=1e-7, err_msg=key)


def values_of(log: Path) -> list[dict]:
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_a_student_comes_near_its_teacher(tmp_path: Path, teacher: dict[str, Path]) -> None:
    log = tmp_path / "log.jsonl"
    learn(tmp_path / "s", teacher["t.h5"], "regression", epochs=6, lr=0.05, log=str(log))
    losses = [line["value"] for line in values_of(log)]
    assert losses[-1] < losses[0] - 0.2
    assert losses[-1] < -0.5


def test_an_online_teacher_is_the_cached_one_on_the_test_crops(
    tmp_path: Path, teacher: dict[str, Path]
) -> None:
    # a rate so small that rounding errors do not grow from step to step
    losses = []
    for name in ("t.h5", "t.safetensors"):
        log = tmp_path / f"{name}.jsonl"
        settings = {"augment": "center", "lr": 1e-5, "log": str(log)}
        learn(tmp_path / name, teacher[name], "contrastive+", **settings)
        losses.append([line["value"] for line in values_of(log)])
    assert len(losses[0]) == 12
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5, atol=1e-5)
    assert np.ptp(losses[0]) > 0.01  # batches differ by far more


def test_cached_views_show_the_student_the_same_pixels(
    tmp_path: Path, teacher: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cached view of every crop is what the online teacher says of that very crop."""
    online = checkpoint.read(str(teacher["t.safetensors"])).build_model()
    distances = []
    embed_batch = CachedTeacher.embed_batch

    def checked(self, batch):
        found = embed_batch(self, batch)
        with torch.no_grad():
            distances.append(float((online(batch.inputs) - found).abs().max()))
        return found

    monkeypatch.setattr(CachedTeacher, "embed_batch", checked)
    learn(tmp_path / "s", teacher["views.h5"], "regression", epochs=5, seed=3)
    assert len(distances) == 30
    assert max(distances) < 1e-5
    with pytest.raises(UsageError, match="--augment affine"):
        learn(tmp_path / "s", teacher["views.h5"], "regression", augment="center")
    for changes in ({"resize": 24}, {"image_size": 24, "resize": 24}):
        with pytest.raises(UsageError, match=r"resize 16.*, but the student has 24"):
            learn(tmp_path / "s", teacher["views.h5"], "regression", **changes)
    with pytest.raises(UsageError, match="holds 3 views"):
        learn(tmp_path / "s", teacher["views.h5"], "regression", views=4)
    assert learn(tmp_path / "s", teacher["views.h5"], "regression", views=3, epochs=1)


def test_neighbours_are_sought_when_they_are_needed(
    tmp_path: Path, teacher: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    found = distill.nearest_rows

    def counted(*args, **settings) -> np.ndarray:
        calls.append(settings["resources"].threads)
        return found(*args, **settings)

    monkeypatch.setattr(distill, "nearest_rows", counted)
    lesson(tmp_path / "s", teacher, "neighbors", dry_run=True)
    with pytest.raises(UsageError, match="nonsense"):
        lesson(tmp_path / "s", teacher, "neighbors", val=["digits:test"], select="nonsense")
    assert calls == []
    lesson(tmp_path / "s", teacher, "neighbors", resume=True)
    lesson(tmp_path / "s", teacher, "neighbors", resume=True)
    assert calls == [1]


def test_the_teacher_is_no_part_of_what_is_trained_or_saved(
    tmp_path: Path, teacher: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = teacher["t.safetensors"].read_bytes()
    teachers, counted = [], []
    created = OnlineTeacher.__init__

    def keep(self, *given, **how):
        created(self, *given, **how)
        teachers.append((self, {k: v.clone() for k, v in self._model.state_dict().items()}))

    stepper = loop._Stepper.__init__

    def count(self, run, settings):
        stepper(self, run, settings)
        counted.append((len(self.parameters), len(list(run.model.parameters()))))

    monkeypatch.setattr(OnlineTeacher, "__init__", keep)
    monkeypatch.setattr(loop._Stepper, "__init__", count)
    learn(tmp_path / "s", teacher["t.safetensors"], "regression")
    assert counted[0][0] == counted[0][1]
    one, state = teachers[0]
    for key, value in one._model.state_dict().items():
        assert torch.equal(state[key], value), key
    assert not isinstance(one, nn.Module)
    assert teacher["t.safetensors"].read_bytes() == before


def test_what_the_student_is_and_declares(tmp_path: Path, teacher: dict[str, Path]) -> None:
    digest = checkpoint.read(str(teacher["t.safetensors"])).digest
    for losses, changes, expected in (
        (["regression"], {}, (8, "cosine", True, digest)),
        (["contrastive", "proxy-anchor"], {}, (8, "cosine", True, digest)),
        (["rkd:angle=0"], {}, (512, "euclidean", False, "")),
        (["rkd:angle=0"], {"normalize": True, "dim": 6}, (6, "cosine", True, "")),
        (["relaxed-contrastive", "regression"], {}, (8, "cosine", True, digest)),
        (["multi-similarity", "pkt"], {"symmetric": True, "dim": 5}, (5, "cosine", True, "")),
        (["regression"], {"normalize": False}, (8, "euclidean", False, "")),
    ):
        output = tmp_path / "s"
        learn(output, teacher["t.h5"], *losses, epochs=0, **changes)
        spec = checkpoint.read(str(output)).spec
        assert (spec.dim, spec.metric, spec.normalize, spec.teacher_space) == expected, losses


def test_the_history_names_the_teacher(tmp_path: Path, teacher: dict[str, Path]) -> None:
    learn(tmp_path / "s", teacher["t.h5"], "regression", epochs=0)
    steps = checkpoint.read(str(tmp_path / "s")).history
    assert [step["command"] for step in steps] == ["train", "embed", "distill"]
    given = {item["option"]: item["digest"] for item in steps[-1]["inputs"]}
    assert given["--teacher"] == embeddings.read(teacher["t.h5"]).digest
    assert steps[-1]["settings"]["loss"][0].startswith("regression:")


# what needs neither torch nor the teacher is refused in tests/test_usage.py
REFUSED = [
    (["contrastive"], {"mixup": "input"}, UsageError, "with --symmetric they are the student"),
    (["regression"], {"memory": 9}, UsageError, "--memory has no place here: regression"),
    (["pkt"], {"miner": "hard"}, UsageError, "nothing to choose from"),
    (["contrastive"], MINED | {"memory": 9}, UsageError, "--mining makes tuples"),
    (["contrastive"], MINED | {"miner": "hard"}, UsageError, "--mining makes tuples"),
    (["contrastive"], MINED | {"mixup": "embedding"}, UsageError, "--mining makes tuples"),
    (["contrastive"], {"lr_group": ["transfer=1"]}, UsageError, "nothing of that name learns"),
    (["contrastive"], {"dim": 9}, UsageError, "would be 9-d"),
    (["contrastive"], {"projection": "none"}, UsageError, "--projection none"),
    (["fitnet", "proxy-anchor"], {}, UsageError, "name the checkpoint"),
    (["crd"], {"projection": "none"}, UsageError, "name the checkpoint"),
    (["regression"], {"teacher_weights": "timm"}, UsageError, "--teacher-weights"),
    (["regression"], {"neighbors": 30}, UsageError, "--neighbors"),
    (["pkt"], MINED | {"dim": 8}, UsageError, "no --loss has a use"),
    (["regression", "pkt"], MINED, UsageError, "no --loss has a use"),
    (["regression"], {"views": 200}, UsageError, "--views 200"),
]


@pytest.mark.parametrize(("losses", "changes", "kind", "message"), REFUSED)
def test_what_is_refused(
    tmp_path: Path,
    teacher: dict[str, Path],
    losses: list[str],
    changes: dict,
    kind: type[Exception],
    message: str,
) -> None:
    with pytest.raises(kind, match=message):
        learn(tmp_path / "s", teacher["t.h5"], *losses, **changes)
    assert list(tmp_path.iterdir()) == []


def test_mining_needs_a_file(tmp_path: Path, teacher: dict[str, Path]) -> None:
    for changes in ({"mining": "hard"}, {"neighbors": 4}):
        with pytest.raises(UsageError, match="embed them"):
            learn(tmp_path / "s", teacher["t.safetensors"], "contrastive", **changes)


def test_a_bare_backbone_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="timm:resnet18"):
        learn(tmp_path / "s", Path("resnet18"), "contrastive")


def test_a_teacher_compared_by_another_metric(tmp_path: Path, teacher: dict[str, Path]) -> None:
    found = embeddings.read(teacher["t.h5"])
    other = tmp_path / "other.h5"
    embeddings.write(other, Embeddings(found.names, found.vectors, metric="euclidean"))
    with pytest.raises(InputError, match="compared by euclidean"):
        learn(tmp_path / "s", other, "regression")
    assert learn(tmp_path / "s", other, "relaxed-contrastive", epochs=1)


def test_validation_is_by_the_students_own_metric(
    tmp_path: Path, teacher: dict[str, Path], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        learn(tmp_path / "s", teacher["t.h5"], "relaxed-contrastive", val=["digits:test"], epochs=1)
    assert any("map@r" in record.getMessage() for record in caplog.records)


def test_the_history_says_what_joined_the_losses(tmp_path: Path, teacher: dict[str, Path]) -> None:
    lesson(tmp_path / "s", teacher, "additions", epochs=0)
    settings = checkpoint.read(str(tmp_path / "s")).history[-1]["settings"]
    assert settings["miner"].startswith("random:")
    assert settings["memory"] == 30
    assert settings["mixup"].startswith(f"{ADDED},negatives=hardest")
    learn(tmp_path / "plain", teacher["t.h5"], "contrastive", epochs=0)
    settings = checkpoint.read(str(tmp_path / "plain")).history[-1]["settings"]
    assert not {"miner", "memory", "memory_start", "mixup"} & settings.keys()


def test_each_term_of_a_student_is_logged(tmp_path: Path, teacher: dict[str, Path]) -> None:
    log = tmp_path / "log.jsonl"
    lesson(tmp_path / "s", teacher, "additions", log=str(log), memory_start=2)
    steps = [{v["name"] for v in values_of(log) if v["step"] == n} for n in range(1, 13)]
    always = {"loss", "contrastive", "contrastive/mixed", "pkt"}
    assert steps == [always] * 3 + [always | {"contrastive/memory"}] * 9
