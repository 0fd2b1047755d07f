"""Courses of several runs: each goes on from the file of the one before as one run would."""

import dataclasses
import logging
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny_runs
import torch
from test_streams import two_streams

from mltool.engine import optim
from mltool.engine.course import Course
from mltool.engine.data import Batch
from mltool.engine.loop import Run
from mltool.engine.streams import MAIN
from mltool.engine.training import TrainingPlan, train
from mltool.errors import InputError, Interrupted
from mltool.files import safetensors_file
from mltool.models import checkpoint, kept_run

EPOCHS = 4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def cut(
    plan: TrainingPlan, first: int, last: int | None, init: Path | None, *, saves: bool = True
) -> TrainingPlan:
    """Return the plan of the epochs `first` to `last` - 1, from the state that a file keeps."""
    kept = kept_run.read(str(init)) if init is not None else None
    loop = dataclasses.replace(plan.loop, from_epoch=first, to_epoch=last)
    return dataclasses.replace(plan, loop=loop, course=Course(kept=kept, saves=saves))


def carry_out(
    folder: Path, make: Callable[[], TrainingPlan], cuts: Sequence[int], **runtime: object
) -> Path:
    """Run a course in parts that end before the epochs of `cuts`; return the last file."""
    init, first = None, 0
    for last in [*cuts, EPOCHS]:
        output = folder / f"to-{last}-{len(cuts)}.safetensors"
        train(cut(make(), first, last, init), tiny_runs.runtime(output, **runtime))
        init, first = output, last
    assert init is not None
    return init


def read_all(path: Path) -> dict[str, np.ndarray]:
    return safetensors_file.read(path)[0]


def assert_same(one: Path, other: Path) -> None:
    """Check that two files hold the same tensors, those of the run too, bit for bit."""
    first, second = read_all(one), read_all(other)
    assert first.keys() == second.keys()
    assert [name for name in first if not np.array_equal(first[name], second[name])] == []
    assert kept_run.read_facts(str(one)) == kept_run.read_facts(str(other))


KINDS = {
    "plain": {},
    "ema": {"ema": 0.9},
    "memory": {"memory": 40, "loss": "contrastive"},
    "proxies, sgd": {"loss": "proxy-anchor", "optimizer": "sgd", "lr": 0.01},
    "lars": {"optimizer": "lars", "lr": 0.1},
    "dropout, clip": {"dropout": 0.2, "clip": 0.5, "miner": "semi-hard"},
    "validation": {"validate": True, "ema": 0.5, "val_every": 2},
}


@pytest.mark.parametrize("kind", KINDS)
def test_parts_of_a_course_equal_one_run(tmp_path: Path, kind: str) -> None:
    def make() -> TrainingPlan:
        return tiny_runs.plan(epochs=EPOCHS, **KINDS[kind])

    assert_same(carry_out(tmp_path, make, []), carry_out(tmp_path, make, [1, 3]))


@pytest.mark.parametrize("mining", ["shuffled", "hard"])
def test_a_second_stream_goes_on_at_its_own_pace(tmp_path: Path, mining: str) -> None:
    def make() -> TrainingPlan:
        return tiny_runs.plan(epochs=EPOCHS, **two_streams(mining))

    assert_same(carry_out(tmp_path, make, []), carry_out(tmp_path, make, [2, 3], workers=2))


def test_a_part_that_was_interrupted_goes_on(tmp_path: Path) -> None:
    def make() -> TrainingPlan:
        return tiny_runs.plan(epochs=EPOCHS, ema=0.9, memory=30, loss="contrastive")

    half, whole = tmp_path / "half.safetensors", carry_out(tmp_path, make, [])
    train(cut(make(), 0, 2, None), tiny_runs.runtime(half))
    output = tmp_path / "end.safetensors"
    how = tiny_runs.runtime(output, resume=True)
    with pytest.raises(Interrupted):
        train(tiny_runs.stopping(cut(make(), 2, None, half), 3), how)
    assert not output.exists()
    train(cut(make(), 2, None, half), how)
    assert_same(whole, output)


def test_an_epoch_is_the_same_whatever_ran_before(tmp_path: Path) -> None:
    """Batches and rates follow the number of the epoch: a fresh optimiser changes no batch."""
    seen: list[tuple[list[int], float]] = []

    def watch(number: int, streams: Mapping[str, Batch], embed: object) -> None:
        seen.append((streams[MAIN].rows.tolist(), plan.optim.lr))

    plan = tiny_runs.plan(epochs=EPOCHS)
    train(tiny_runs.hooked(plan, watch), tiny_runs.runtime(tmp_path / "whole.safetensors"))
    whole, seen[:] = seen[:], []
    plan = tiny_runs.hooked(tiny_runs.plan(epochs=EPOCHS), watch)
    train(cut(plan, 1, 3, None), tiny_runs.runtime(tmp_path / "part.safetensors"))
    assert seen == whole[5:15]


def test_the_log_of_a_course_is_one(tmp_path: Path) -> None:
    """Parts that write one log write what one run would have written."""
    logs = []
    for cuts in ([], [1, 2]):
        log = tmp_path / f"{len(cuts)}.jsonl"
        carry_out(tmp_path, lambda: tiny_runs.plan(epochs=EPOCHS), cuts, log=str(log))
        logs.append(log.read_text())
    assert logs[0] == logs[1]


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """Half of a course, with its optimiser and averages."""
    output = tmp_path / "kept.safetensors"
    train(cut(tiny_runs.plan(epochs=EPOCHS, ema=0.9), 0, 2, None), tiny_runs.runtime(output))
    return output


def test_a_model_is_read_without_the_state_of_its_run(kept: Path, tmp_path: Path) -> None:
    arrays, meta = safetensors_file.read(kept)
    state = [name for name in arrays if name.startswith("optimizer.")]
    sections = {name.split(".")[1] for name in state}
    assert sections == {"state", "model"}  # the averages are those of the file
    for name in state:
        arrays[name] = np.full_like(arrays[name], 7)
    for name in [name for name in state if arrays[name].dtype.kind == "f"]:
        arrays[name][...] = np.nan  # whoever reads it, sees it
    spoiled = tmp_path / "spoiled.safetensors"
    safetensors_file.write(spoiled, arrays, meta=meta)
    one, other = (checkpoint.read(str(path)) for path in (kept, spoiled))
    assert one.state.keys() == other.state.keys()
    assert all(torch.equal(value, other.state[name]) for name, value in one.state.items())
    other.build_model()
    with pytest.raises(InputError, match="NaN"):
        kept_run.read(str(spoiled))


def test_another_optimiser_or_model_is_refused(kept: Path, tmp_path: Path) -> None:
    how = tiny_runs.runtime(tmp_path / "next.safetensors")
    for settings, message in (
        ({"optimizer": "sgd"}, "written with --optimizer adamw, not sgd"),
        ({"loss": "proxy-anchor"}, "the objective of this run has other tensors"),
    ):
        with pytest.raises(InputError, match=message):
            train(cut(tiny_runs.plan(epochs=EPOCHS, **settings), 2, None, kept), how)
    plan = tiny_runs.plan(epochs=EPOCHS)
    wider = dataclasses.replace(plan, model=tiny_runs.model(dim=16))
    with pytest.raises(InputError, match="the model of this run has other tensors"):
        train(cut(wider, 2, None, kept), how)


def test_facts_that_are_damaged_are_bad_input(kept: Path, tmp_path: Path) -> None:
    arrays, meta = safetensors_file.read(kept)
    path = tmp_path / "damaged.safetensors"
    for facts in (
        {"epoch": "2"},
        {"optimizer": 3},
        {"scaler": [1]},
        {"scaler": {"scale": "x"}},
        {"best_score": "x"},
        {"stranger": 1},
    ):
        safetensors_file.write(path, arrays, meta=meta | {"run": meta["run"] | facts})
        with pytest.raises(InputError, match="damaged"):
            kept_run.read(str(path))
    safetensors_file.write(path, arrays, meta=meta | {"run": [1]})
    with pytest.raises(InputError, match="damaged"):
        kept_run.read_facts(str(path))


def test_another_beginning_or_validation_is_said(
    kept: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    how = tiny_runs.runtime(tmp_path / "next.safetensors")
    with caplog.at_level(logging.WARNING):
        train(cut(tiny_runs.plan(epochs=EPOCHS), 3, None, kept), how)
    assert "written before epoch 2, this run begins at epoch 3" in caplog.text
    assert "averages of --ema are not continued" in caplog.text


def test_the_best_of_another_validation_does_not_count(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half, end = tmp_path / "half.safetensors", tmp_path / "end.safetensors"
    train(cut(tiny_runs.plan(epochs=2, validate=True), 0, 1, None), tiny_runs.runtime(half))
    plan = tiny_runs.plan(epochs=2, validate=True)
    assert plan.validation is not None
    other = dataclasses.replace(plan.validation, select="precision@1")
    plan = dataclasses.replace(plan, validation=other)
    train(cut(plan, 1, None, half), tiny_runs.runtime(end))
    assert "its best score does not count" in caplog.text
    assert kept_run.read_facts(str(end)).best_epoch == 2


def test_a_plan_may_change_what_it_goes_on_with(kept: Path, tmp_path: Path) -> None:
    """`adapt` meets the kept state, once, and the run goes on from what it leaves."""
    name, calls = "after.weight", []

    def adapt(run: Run) -> None:
        calls.append(run.counters.epoch)
        with torch.no_grad():
            run.model.get_parameter(name).fill_(0.5)
        assert any(value.any() for value in moments(run).values())
        optim.clear_moments(run.optimizer, [f"model.{name}"])
        assert not any(value.any() for value in moments(run).values())

    def moments(run: Run) -> dict[str, torch.Tensor]:
        state = optim.state(run.optimizer)
        return {key: value for key, value in state.items() if key.startswith(f"model.{name}/")}

    def make() -> TrainingPlan:
        plan = cut(tiny_runs.plan(epochs=EPOCHS, lr=0.0, ema=0.9), 2, None, kept)
        return dataclasses.replace(plan, course=dataclasses.replace(plan.course, adapt=adapt))

    how = tiny_runs.runtime(tmp_path / "next.safetensors", resume=True)
    with pytest.raises(Interrupted):
        train(tiny_runs.stopping(make(), 3), how)
    train(make(), how)
    assert calls == [2]  # not again after the resume
    weights = kept_run.read(how.output).section("model.")[name]
    assert torch.equal(weights, torch.full_like(weights, 0.5))
