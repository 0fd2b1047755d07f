"""Two processes do what one would do with the whole batch: forks joined by gloo."""

import dataclasses
import json
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from mltool import distributed
from mltool.errors import UsageError

sys.path.insert(0, str(Path(__file__).parent / "engine"))

from tiny_heads import make_head, make_plan, write_vectors
from tiny_learners import divide
from tiny_pretexts import METHODS
from tiny_pretexts import make_plan as make_pretext_plan
from tiny_runs import Child, plan, run, runtime, stopping
from tiny_students import student

from mltool.engine import run_state
from mltool.engine.training import train
from mltool.files import safetensors_file
from mltool.models import checkpoint

CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def start(work: Callable[[], object], *, world: int = 2) -> list[Child]:
    """`world` processes that call `work` in one session, as torchrun would start them."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]

    def joined(rank: int) -> Callable[[], None]:
        def body() -> None:
            os.environ |= {
                "RANK": str(rank),
                "WORLD_SIZE": str(world),
                "LOCAL_RANK": str(rank),
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }
            with distributed.session(CPU):
                work()

        return body

    return [Child(joined(rank)) for rank in range(world)]


def together(work: Callable[[], object], *, world: int = 2) -> None:
    """Run `work` on all ranks and see that it went well."""
    for status, message in [child.wait() for child in start(work, world=world)]:
        assert status == 0, message


def numbers(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def head(vectors: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """A loss of all rows with all rows, and of the rows with learned ones."""
    vectors = nn.functional.normalize(vectors)
    return (vectors @ vectors.T).exp().mean() + (vectors @ weight.T).pow(3).sum()


@pytest.mark.parametrize("world", [2, 3])
def test_gradients_are_those_of_one_process(world: int) -> None:
    rows, first, last = numbers(6, 5), numbers(4, 5, seed=1), numbers(3, 4, seed=2)
    first.requires_grad_()
    last.requires_grad_()
    head((rows @ first.T).tanh(), last).backward()

    def work() -> None:
        own_first, own_last = (p.detach().clone().requires_grad_() for p in (first, last))
        size = 6 // world
        part = rows[distributed.rank() * size :][:size]
        gathered = distributed.gather((part @ own_first.T).tanh())
        torch.testing.assert_close(gathered, (rows @ own_first.T).tanh())
        head(gathered, own_last).backward()
        distributed.average_gradients([own_first, own_last])
        torch.testing.assert_close(own_first.grad, first.grad)
        torch.testing.assert_close(own_last.grad, last.grad)

    together(work, world=world)


def test_the_backward_of_gather_leaves_the_gradient_to_others() -> None:
    def work() -> None:
        other = torch.zeros(4, 3, requires_grad=True)
        rows = torch.ones(2, 3, requires_grad=True)
        earlier = other * 1.0  # made before the gathering: its turn in the backward comes after
        ((distributed.gather(rows) + earlier) * 2).sum().backward()
        assert torch.equal(other.grad, torch.full((4, 3), 2.0))  # and not summed over the ranks
        assert torch.equal(rows.grad, torch.full((2, 3), 4.0))

    together(work)


def test_gathering_labels_flags_and_objects() -> None:
    def work() -> None:
        rank = distributed.rank()
        labels = distributed.gather(torch.tensor([rank, 7]))
        assert labels.tolist() == [0, 7, 1, 7]
        assert labels.dtype == torch.int64
        strided = numbers(2, 6)[:, ::2] + rank
        assert torch.equal(distributed.gather(strided)[2:], numbers(2, 6)[:, ::2] + 1)
        assert distributed.gather_objects({"rank": rank}) == [{"rank": 0}, {"rank": 1}]
        assert distributed.any_rank(rank == 1, CPU)
        assert not distributed.any_rank(False, CPU)
        norm = nn.BatchNorm2d(3)
        norm.running_mean.fill_(rank + 1.0)
        norm.num_batches_tracked.fill_(rank + 5)
        distributed.broadcast_buffers(norm)
        assert norm.running_mean.tolist() == [1.0] * 3
        assert norm.num_batches_tracked == 5

    together(work)


def test_averaging_keeps_layouts_and_skips_what_has_no_gradient() -> None:
    def work() -> None:
        conv = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last)
        idle = nn.Parameter(torch.zeros(2))
        values = torch.arange(108.0).reshape(4, 3, 3, 3)
        values = values.contiguous(memory_format=torch.channels_last)
        conv.weight.grad = values * (1 + 2 * distributed.rank())
        conv.bias.grad = torch.full((4,), float(distributed.rank()))
        distributed.average_gradients([conv.weight, idle, conv.bias])
        assert torch.equal(conv.weight.grad, values * 2)
        assert conv.weight.grad.stride() == values.stride()
        assert conv.bias.grad.tolist() == [0.5] * 4
        assert idle.grad is None

    together(work)


def test_alone_everything_is_the_identity() -> None:
    rows = torch.ones(2, 3, requires_grad=True)
    assert distributed.gather(rows) is rows
    assert (distributed.rank(), distributed.world()) == (0, 1)
    assert distributed.gather_objects(3) == [3]
    assert distributed.any_rank(True, CPU)
    assert not distributed.any_rank(False, CPU)
    distributed.average_gradients([nn.Parameter(torch.zeros(1))])
    with distributed.session(CPU):
        assert not torch.distributed.is_initialized()


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "3"}, (1, 3)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "2", "SLURM_NTASKS": "4"}, (2, 4)),
        ({"SLURM_STEP_ID": "0", "SLURM_PROCID": "0", "SLURM_NTASKS": "1"}, None),
        ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, None),  # in the batch script, not in a step
    ],
)
def test_who_started_us(environment: dict, expected: tuple | None, monkeypatch) -> None:
    for name in ("RANK", "WORLD_SIZE", "SLURM_STEP_ID", "SLURM_NTASKS", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert distributed._rank_and_world() == expected


def test_half_an_environment_is_refused(monkeypatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(UsageError, match="WORLD_SIZE"), distributed.session(CPU):
        pass


def test_several_slurm_nodes_need_an_address(monkeypatch) -> None:
    given = {"SLURM_STEP_ID": "0", "SLURM_PROCID": "1", "SLURM_NTASKS": "2", "SLURM_NNODES": "2"}
    for name in ("RANK", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match="MASTER_ADDR"), distributed.session(CPU):
        pass


RUNS = [
    {"loss": "multi-similarity"},
    {"loss": "proxy-anchor", "clip": 5.0},
    {"loss": "contrastive", "ema": 0.9, "validate": True},
    {"loss": "margin:learn=class", "miner": "distance-weighted", "memory": 40},
    {"loss": "soft-triple:centers=3", "lr": 5e-4},
    {"loss": "arcface", "lr": 1e-3},
    {"loss": "multi-similarity", "mixup": "embedding", "miner": "multi-similarity"},
    {"loss": "nca", "mixup": "input:per_anchor=3"},
    {"loss": "proxy-anchor", "mixup": "feature:stage=layer3,per_anchor=3", "lr": 0.002},
    {"loss": "contrastive", "mixup": "feature:pairs=anchor-neg,per_anchor=1", "memory": 40},
]


@pytest.mark.parametrize("settings", RUNS, ids=lambda s: s["loss"] + s.get("mixup", ""))
def test_two_processes_equal_one_with_the_whole_batch(tmp_path: Path, settings: dict) -> None:
    settings = {"optimizer": "sgd", "lr": 0.005, "freeze_bn": True, "epochs": 2} | settings
    settings["precision"] = "fp64"  # where rounding errors do not hide a term left out
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    run(one, **settings)
    together(lambda: train(plan(**settings), runtime(two)))
    left, right = checkpoint.read(str(one)), checkpoint.read(str(two))
    start = plan(**settings).model.state_dict()
    moved = 0.0
    for key, value in left.state.items():
        torch.testing.assert_close(right.state[key], value, atol=1e-9, rtol=1e-9)
        moved = max(moved, float((value - start[key]).abs().max()))
    assert moved > 1e-3  # else this would say nothing
    for key, value in left.objective.items():
        torch.testing.assert_close(right.objective[key], value, atol=1e-9, rtol=1e-9)
    logs = [
        [json.loads(line) for line in Path(f"{path}.jsonl").read_text().splitlines()]
        for path in (one, two)
    ]
    assert [(line["step"], line["name"]) for line in logs[0]] == [
        (line["step"], line["name"])
        for line in logs[1]  # and nothing twice
    ]
    values = np.array([[line["value"] for line in lines] for lines in logs])
    np.testing.assert_allclose(values[0], values[1], rtol=1e-5)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(one.name, two.name, f"{one.name}.jsonl", f"{two.name}.jsonl")
    }


@pytest.mark.parametrize(
    ("basis", "loss", "memory"),
    [
        ("slade:warmup=3,momentum=0.9", "multi-similarity", None),
        ("slade:gradient=damped,mining=agree,momentum=0.5", "contrastive", None),
        (None, "proxy-anchor", None),
        (None, "contrastive", 20),
    ],
)
def test_two_processes_make_the_student_of_one(
    tmp_path: Path, basis: str | None, loss: str, memory: int | None
) -> None:
    settings = {"optimizer": "sgd", "lr": 0.01, "freeze_bn": True, "precision": "fp64"}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"

    def work(output: Path) -> None:
        train(plan(**settings, **student(basis, loss, memory=memory)), runtime(output))

    work(one)
    together(lambda: work(two))
    left, right = checkpoint.read(str(one)), checkpoint.read(str(two))
    start = plan().model.state_dict()
    assert max(float((value - start[key]).abs().max()) for key, value in left.state.items()) > 1e-3
    for key, value in (left.state | left.objective).items():
        other = (right.state | right.objective)[key]
        torch.testing.assert_close(other, value, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize(
    ("parts", "loss", "memory"),
    [
        ("slices:count=4", "proxy-anchor", None),
        ("slices:count=4", "contrastive", 20),
        ("masks:count=3,freeze_epochs=1", "multi-similarity", None),
    ],
)
def test_two_processes_train_the_learners_of_one(
    tmp_path: Path, parts: str, loss: str, memory: int | None
) -> None:
    settings = {"optimizer": "sgd", "lr": 0.01, "freeze_bn": True, "precision": "fp64"}
    settings |= {"loss": loss, "memory": memory, "full_from": 2}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    train(divide(parts, **settings), runtime(one))
    together(lambda: train(divide(parts, **settings), runtime(two)))
    left, right = checkpoint.read(str(one)), checkpoint.read(str(two))
    start = divide(parts).model.state_dict()
    assert max(float((value - start[key]).abs().max()) for key, value in left.state.items()) > 1e-3
    for key, value in (left.state | left.objective).items():
        other = (right.state | right.objective)[key]
        torch.testing.assert_close(other, value, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("kind", ["classes", "mined"])
def test_two_processes_learn_the_head_of_one(tmp_path: Path, kind: str) -> None:
    paths = write_vectors(tmp_path)
    settings = {"optimizer": "sgd", "lr": 0.05, "freeze_bn": True, "precision": "fp64"}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    train(make_plan(paths, kind, **settings), runtime(one))
    together(lambda: train(make_plan(paths, kind, **settings), runtime(two)))
    start = make_head().state_dict()
    left, right = checkpoint.read(str(one)).state, checkpoint.read(str(two)).state
    assert max(float((left[key] - start[key]).abs().max()) for key in left) > 1e-3
    for key, value in left.items():
        torch.testing.assert_close(right[key], value, atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_learn_the_pretext_of_one(tmp_path: Path, method: str) -> None:
    settings = {"precision": "fp64", "freeze_bn": True, "epochs": 2}
    one, two = tmp_path / "one.safetensors", tmp_path / "two.safetensors"
    train(make_pretext_plan(method, **settings), runtime(one))
    together(lambda: train(make_pretext_plan(method, **settings), runtime(two)))
    start = make_pretext_plan(method).model.state_dict()
    left, right = checkpoint.read(str(one)), checkpoint.read(str(two))
    assert max(float((left.state[key] - start[key]).abs().max()) for key in start) > 1e-4
    for state, other in ((left.state, right.state), (left.objective, right.objective)):
        assert state.keys() == other.keys()
        for key, value in state.items():
            torch.testing.assert_close(other[key], value, atol=1e-9, rtol=1e-9)


def test_statistics_of_parts_are_said(tmp_path: Path, caplog) -> None:
    def work() -> None:
        with caplog.at_level("WARNING"):
            train(plan(epochs=1), runtime(tmp_path / "m.safetensors", log=None))
        said = "--freeze-bn" in caplog.text
        assert said == (distributed.rank() == 0)

    together(work)


@pytest.mark.parametrize("rank", [0, 1])
@pytest.mark.parametrize("step", [3, 5])
def test_a_signal_to_one_rank_stops_both_at_one_step(tmp_path: Path, rank: int, step: int) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    settings = {"epochs": 2, "freeze_bn": True, "validate": True}
    together(lambda: train(plan(**settings), runtime(whole)))

    def work() -> None:
        given = plan(**settings)
        if distributed.rank() == rank:
            given = stopping(given, step)
        train(given, runtime(broken, resume=True))

    ends = [child.wait() for child in start(work)]
    assert [status for status, _ in ends] == [75, 75], ends
    counters = safetensors_file.read_meta(run_state.path_of(str(broken)))["counters"]
    assert counters["epoch"] * 5 + counters["step"] == step
    together(lambda: train(plan(**settings), runtime(broken, resume=True)))
    assert broken.read_bytes() == whole.read_bytes()


@pytest.mark.parametrize("flat", [{0, 1}, {1}])
def test_ranks_agree_on_a_collapse(tmp_path: Path, flat: set[int]) -> None:
    """All stop, or none: a rank of its own would leave the others waiting."""

    class Idle(nn.Module):
        remedy = ""

        def forward(self, streams, embed, moment):
            return {"idle": distributed.gather(embed(streams["main"].inputs)).sum() * 0}

        def figures(self):
            return {}

    def work() -> None:
        given = dataclasses.replace(plan(epochs=11, size=8), objective=Idle())
        with torch.no_grad():
            given.model.after.weight.mul_(0.0 if distributed.rank() in flat else 100.0)
        train(given, runtime(tmp_path / "m.safetensors", log=None))

    ends = [child.wait() for child in start(work)]
    assert {status for status, _ in ends} == ({4} if len(flat) == 2 else {0}), ends


def test_an_output_that_is_finished_is_no_work_for_anybody(tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    work = lambda: train(plan(epochs=1, freeze_bn=True), runtime(output, resume=True))  # noqa: E731
    together(work)
    stamp = output.stat().st_mtime_ns
    together(work)
    assert output.stat().st_mtime_ns == stamp
