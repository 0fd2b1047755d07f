"""Whole runs: the same bytes whatever interrupts them, and the last good state when they fail."""

import dataclasses
import json
import logging
import os
import signal
import time
from pathlib import Path

import pytest
import torch
from timm.layers import BatchNormAct2d, convert_sync_batchnorm
from tiny_runs import (
    Child,
    hooked,
    interrupted,
    kill_until_done,
    manifest,
    model,
    plan,
    run,
    runtime,
    stopping,
    wait_for,
)
from torch import nn

from mltool.engine import run_state, training
from mltool.engine.data import Images
from mltool.engine.extract import Extraction, embed_rows, find_readable
from mltool.engine.loading import load
from mltool.engine.training import train
from mltool.errors import InputError, NumericError, ResourceError
from mltool.files import safetensors_file
from mltool.files.describe import read_facts
from mltool.files.names import StringArray
from mltool.models import checkpoint
from mltool.retrieval.scoring import score


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def log_lines(output: Path) -> list[dict]:
    return [json.loads(line) for line in Path(f"{output}.jsonl").read_text().splitlines()]


VARIANTS = [
    {},
    {"ema": 0.9},
    {"validate": True, "ema": 0.9, "val_every": 2, "epochs": 4},
    {"validate": True, "patience": 1, "lr": 0.0, "epochs": 6},
    {"optimizer": "sgd", "loss": "proxy-anchor", "clip": 1.0},
    {"optimizer": "rmsprop", "freeze_bn": True},
    {"optimizer": "adam", "dropout": 0.3},
    {"precision": "bf16", "size": 32, "epochs": 2},
    {"loss": "contrastive", "miner": "random", "memory": 40},
    {"mixup": "embedding:pairs=pos-neg+anchor-neg", "miner": "random", "memory": 40},
    {"mixup": "input", "dropout": 0.3},
    {"mixup": "feature:stage=layer2,negatives=random,draw=step", "loss": "proxy-anchor"},
    {"mixup": "feature", "precision": "bf16", "size": 32, "epochs": 2},
]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda s: "-".join(s) or "plain")
def test_an_interrupted_run_ends_with_the_same_bytes(tmp_path: Path, settings: dict) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    expected = run(whole, **settings)
    # in mid-epoch, in the last step of an epoch, in the first of the next
    for at in (3, 2, 1):
        interrupted(broken, at, **settings)
    assert run(broken, run_time={"resume": True}, **settings) == expected
    assert log_lines(broken) == log_lines(whole)
    assert {path.name for path in tmp_path.iterdir()} == {
        *(f"{name}.safetensors{end}" for name in ("whole", "broken") for end in ("", ".jsonl"))
    }


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2])
def test_every_watched_signal_saves(tmp_path: Path, number: int) -> None:
    output = tmp_path / "model.safetensors"
    interrupted(output, 2, number=number, epochs=1)
    meta = safetensors_file.read_meta(run_state.path_of(str(output)))
    assert meta["counters"] == {"epoch": 0, "step": 2, "best_epoch": -1}


def test_a_signal_in_the_last_step_lets_the_run_finish(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    train(stopping(plan(epochs=1), 5), runtime(output))
    assert output.read_bytes() == run(tmp_path / "b.safetensors", epochs=1)
    assert not Path(run_state.path_of(str(output))).exists()


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_change_nothing_and_may_change(tmp_path: Path, workers: int) -> None:
    expected = run(tmp_path / "a.safetensors", epochs=2, cache=False)
    output = tmp_path / "b.safetensors"
    interrupted(output, 7, epochs=2, run_time={"workers": workers})
    assert run(output, epochs=2, run_time={"resume": True, "workers": 2 - workers}) == expected


def test_a_signal_to_the_whole_group_saves(tmp_path: Path) -> None:
    """`timeout`, Ctrl-C and Slurm signal the loading processes too."""
    output = tmp_path / "model.safetensors"
    expected = run(tmp_path / "a.safetensors")
    settings = runtime(output, workers=2, save_every=0.0)
    for number in (signal.SIGTERM, signal.SIGINT):
        child = Child(
            lambda: train(plan(epochs=3), dataclasses.replace(settings, resume=True)), group=True
        )
        done = Path(run_state.path_of(str(output)))
        before = done.stat().st_mtime_ns if done.exists() else 0
        wait_for(lambda: done.exists() and done.stat().st_mtime_ns > before)  # noqa: B023
        os.killpg(child.pid, number)
        status, message = child.wait()
        assert (status, message[:11]) == (75, "Interrupted"), message
    assert run(output, run_time={"resume": True}) == expected


@pytest.mark.parametrize(
    ("seed", "settings"),
    [(1, {}), (2, {"validate": True, "ema": 0.9}), (3, {"workers": 2, "cache": False})],
    ids=["plain", "validate-ema", "workers"],
)
def test_killed_at_random_moments(tmp_path: Path, seed: int, settings: dict) -> None:
    whole, killed = tmp_path / "whole.safetensors", tmp_path / "killed.safetensors"
    workers = settings.get("workers", 0)
    rest = {key: value for key, value in settings.items() if key != "workers"}
    start = time.monotonic()
    expected = run(whole, **rest)
    seconds = max(time.monotonic() - start, 0.3)
    hits = kill_until_done(killed, kills=4, seed=seed, seconds=seconds, workers=workers, **rest)
    assert hits
    assert killed.read_bytes() == expected
    assert log_lines(killed) == log_lines(whole)
    left = {path.name for path in tmp_path.iterdir()} - {whole.name, killed.name}
    assert left == {f"{whole.name}.jsonl", f"{killed.name}.jsonl"}


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_killed_at_many_random_moments(tmp_path: Path, seed: int) -> None:
    settings = VARIANTS[seed % len(VARIANTS)]
    expected = run(tmp_path / "whole.safetensors", **settings)
    killed = tmp_path / "killed.safetensors"
    kill_until_done(killed, kills=5, seed=seed, seconds=1.5, workers=seed % 3, **settings)
    assert killed.read_bytes() == expected


def test_a_finished_run_is_not_repeated(tmp_path: Path, caplog) -> None:
    output = tmp_path / "model.safetensors"
    interrupted(output, 4, epochs=1)
    state = Path(run_state.path_of(str(output))).read_bytes()
    expected = run(output, epochs=1, run_time={"resume": True})
    stamp = output.stat().st_mtime_ns
    Path(run_state.path_of(str(output))).write_bytes(state)  # killed before it could remove it
    with caplog.at_level(logging.INFO):
        assert run(output, epochs=1, run_time={"resume": True}) == expected
    assert "finished already" in caplog.text
    assert output.stat().st_mtime_ns == stamp
    assert not Path(run_state.path_of(str(output))).exists()
    run(output, epochs=1)  # without --resume it is made again
    assert output.stat().st_mtime_ns > stamp


def test_a_finished_run_leaves_the_state_of_another_alone(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    run(output, epochs=1)
    done = output.read_bytes()
    output.unlink()
    interrupted(output, 4, epochs=2)
    output.write_bytes(done)
    run(output, epochs=1, run_time={"resume": True})
    assert Path(run_state.path_of(str(output))).exists()


def test_without_resume_a_run_starts_over(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    interrupted(output, 4, epochs=2, seed=5)
    expected = run(tmp_path / "b.safetensors", epochs=1)
    assert run(output, epochs=1) == expected
    assert log_lines(output)[0]["step"] == 1


@pytest.mark.parametrize("at", [4, 5])
def test_nan_keeps_the_last_good_state(tmp_path: Path, at: int) -> None:
    def spoil(number, streams, embed):
        """A finite loss with a gradient that is not: the weights are lost, the loss looks well."""
        if number == at:
            return {"root": (embed(streams["main"].inputs[:2]).sum() * 0).abs().sqrt()}
        return {}

    output = tmp_path / "model.safetensors"
    with pytest.raises(NumericError, match="weights are not finite"):
        train(hooked(plan(epochs=1), spoil), runtime(output, save_every=0.0))
    assert not output.exists()
    arrays, meta = safetensors_file.read(run_state.path_of(str(output)))
    assert meta["counters"]["step"] == at - 1
    assert all(torch.from_numpy(array).isfinite().all() for array in arrays.values())
    with pytest.raises(NumericError):  # nor without a save in between
        train(hooked(plan(epochs=1), spoil), runtime(output))
    assert not output.exists()


def test_validation_keeps_the_best_epoch(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    run(output, validate=True, epochs=5, lr=0.02)
    scores = {line["epoch"]: line["value"] for line in log_lines(output) if "val/" in line["name"]}
    assert sorted(scores) == list(range(5))
    assert len(set(scores.values())) > 1
    best = max(scores.values())
    given = plan(validate=True)
    images = given.validation.source
    found = checkpoint.read(str(output)).build_model()
    vectors = embed_rows(found, images, Extraction(8, 0, torch.device("cpu"), "fp32"))
    held_out = images.manifest
    again = score(vectors, held_out.labels, held_out.names, metrics=["map@r"])["map@r"]
    assert again == pytest.approx(best, abs=1e-6)


def test_validation_does_not_disturb_training(tmp_path: Path) -> None:
    """Its last epoch is the same model, statistics and all, as without validation."""
    output = tmp_path / "a.safetensors"
    interrupted(output, 13, validate=True, val_every=1)
    seen, _ = safetensors_file.read(run_state.path_of(str(output)))
    output = tmp_path / "b.safetensors"
    interrupted(output, 13)
    blind, _ = safetensors_file.read(run_state.path_of(str(output)))
    assert all((seen[key] == value).all() for key, value in blind.items())


def test_ema_writes_the_averages(tmp_path: Path) -> None:
    run(tmp_path / "a.safetensors")
    run(tmp_path / "b.safetensors", ema=0.9)
    plain = checkpoint.read(str(tmp_path / "a.safetensors")).state
    averaged = checkpoint.read(str(tmp_path / "b.safetensors")).state
    name = "after.weight"
    assert not torch.equal(plain[name], averaged[name])
    start = model().state_dict()[name]
    assert (averaged[name] - start).norm() < (plain[name] - start).norm()
    counts = [key for key in plain if key.endswith("running_mean")]
    assert all(torch.equal(plain[key], averaged[key]) for key in counts)


def test_no_epochs_write_the_untrained_model(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    run(output, epochs=0)
    found = checkpoint.read(str(output))
    assert all(torch.equal(found.state[k], v) for k, v in model().state_dict().items())
    assert found.classes == ("0", "1", "2", "3", "4")


def test_a_checkpoint_holds_objective_and_history(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    run(output, loss="proxy-anchor", epochs=1)
    found = checkpoint.read(str(output))
    assert (5, 8) in {tuple(value.shape) for value in found.objective.values()}
    assert read_facts(str(output))["objective_parameters"] == 5 * 8
    assert found.history[-1]["settings"]["loss"] == "proxy-anchor"


def test_two_runs_do_not_write_one_output(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    child = Child(lambda: train(plan(epochs=200), runtime(output, save_every=0.0)))
    wait_for(Path(run_state.path_of(str(output))).exists)
    with pytest.raises(ResourceError, match="busy"):
        train(plan(), runtime(output))
    os.kill(child.pid, signal.SIGTERM)
    assert child.wait()[0] == 75


def test_an_unwritable_output_is_refused_before_training(tmp_path: Path) -> None:
    with pytest.raises(ResourceError):
        train(plan(epochs=10**6), runtime(tmp_path / "none" / "model.safetensors", log=None))


def test_training_learns(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    run(output, epochs=8, lr=5e-3)
    losses = [line["value"] for line in log_lines(output)]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


def test_usable_names_what_cannot_be_read(tmp_path: Path) -> None:
    given = plan()
    of = manifest()
    bad = dataclasses.replace(
        of, paths=StringArray.from_texts(["/no/such.png", *list(of.paths)[1:]])
    )
    images = Images(
        bad, given.model.spec, given.main.source.augmentations, seed=0, cache=True, skip_bad=True
    )
    rows, reasons = find_readable(images, workers=0, batch_size=7)
    assert rows.tolist() == list(range(1, 80))
    assert len(reasons) == 1
    assert "/no/such.png" in reasons[0]


def test_an_image_that_breaks_in_mid_run_is_named(tmp_path: Path) -> None:
    given = plan()
    paths = ["/no/such.png", *list(given.main.source.manifest.paths)[1:]]
    bad = dataclasses.replace(given.main.source.manifest, paths=StringArray.from_texts(paths))
    given.main.source.manifest = bad
    with pytest.raises(InputError, match=r"/no/such\.png"):
        train(given, runtime(tmp_path / "model.safetensors"))


def test_synchronised_statistics_keep_fused_activations() -> None:
    """torch's own conversion turns timm's norm-and-activation layers into bare norms."""
    net = model(arch="test_efficientnet").eval()
    assert any(isinstance(m, BatchNormAct2d) for m in net.modules())
    batch = next(load(plan().main.source, [[(0, 0), (1, 0)]], workers=0))
    expected = net(batch.inputs)
    assert training.convert_sync_batchnorm is convert_sync_batchnorm
    convert_sync_batchnorm(net)
    assert any(isinstance(m, nn.SyncBatchNorm) for m in net.modules())
    torch.testing.assert_close(net(batch.inputs), expected)
