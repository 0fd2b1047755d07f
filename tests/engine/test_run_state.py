"""Whether a run may go on from a state on disk, and what comes back."""

import dataclasses
import json
from pathlib import Path

import pytest
import tiny_runs
import torch
from tiny_runs import interrupted

from mltool.engine import run_state
from mltool.engine.training import train
from mltool.errors import InputError
from mltool.files import safetensors_file
from mltool.models import checkpoint


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """An output whose run was interrupted in step 3 of 5 of the first of two epochs."""
    output = tmp_path / "model.safetensors"
    interrupted(output, 3, epochs=2, ema=0.9)
    return output


def resume(output: Path, *, allow: bool = False, **settings) -> bytes:
    run_time = {"resume": True, "allow_nonidentical": allow}
    return tiny_runs.run(output, run_time=run_time, **{"epochs": 2, "ema": 0.9} | settings)


def state_of(output: Path) -> dict:
    return safetensors_file.read_meta(run_state.path_of(str(output)))


@pytest.mark.parametrize("allow", [False, True])
def test_other_settings_are_refused_with_the_differences(output: Path, allow: bool) -> None:
    with pytest.raises(
        InputError, match=r"settings\.lr: 0\.001 -> 0\.5|lr: 0\.001 -> 0\.5"
    ) as error:
        resume(output, lr=0.5, epochs=3, allow=allow)
    assert "epochs: 2 -> 3" in str(error.value)
    assert "leave out --resume" in str(error.value)
    assert "momentum" not in str(error.value)
    assert resume(output)  # and it is still there


@pytest.mark.parametrize("what", ["threads", "device", "torch"])
def test_other_conditions_need_a_word(output: Path, what: str, monkeypatch) -> None:
    real = run_state.restore

    def elsewhere(path, run, identity, **given):
        setting = identity.setting | {what: "another"}
        return real(path, run, dataclasses.replace(identity, setting=setting), **given)

    monkeypatch.setattr(run_state, "restore", elsewhere)
    with pytest.raises(InputError, match=f'{what}: .* -> "another".*--allow-nonidentical'):
        resume(output)
    assert resume(output, allow=True)


def test_another_number_of_threads_is_seen(output: Path) -> None:
    torch.set_num_threads(2)
    with pytest.raises(InputError, match="threads: 1 -> 2"):
        resume(output)
    torch.set_num_threads(1)


def test_another_batch_goes_on_at_the_same_part_of_the_epoch(output: Path) -> None:
    with pytest.raises(InputError, match=r"batch_size: 16 -> 8.*steps: 5 -> 10"):
        resume(output, k=2)
    assert state_of(output)["counters"]["step"] == 3
    log = Path(f"{output}.jsonl")
    assert len(log.read_text().splitlines()) == 3
    resume(output, k=2, allow=True)
    steps = [json.loads(line)["step"] for line in log.read_text().splitlines()]
    assert steps == [1, 2, 3, *range(7, 21)]  # after 6 of 10 instead of 3 of 5


def test_the_whole_state_comes_back(output: Path) -> None:
    given = tiny_runs.plan(epochs=2, ema=0.9)
    seen = {}
    real = run_state.restore

    def watched(path, run, identity, **rest):
        best = real(path, run, identity, **rest)
        seen.update(run=run, best=best)
        return best

    run_state.restore = watched
    try:
        train(given, tiny_runs.runtime(output, resume=True))
    finally:
        run_state.restore = real
    assert seen["best"] is None
    assert seen["run"].ema.updates == 10


@pytest.mark.parametrize("where", [0.1, 0.5, 0.9])
def test_a_damaged_state_is_refused(output: Path, where: float) -> None:
    path = Path(run_state.path_of(str(output)))
    data = bytearray(path.read_bytes())
    data[int(len(data) * where)] ^= 16
    path.write_bytes(data)
    with pytest.raises(InputError, match="partial"):
        resume(output)
    path.write_bytes(data[: int(len(data) * where)])
    with pytest.raises(InputError, match="partial"):
        resume(output)


def test_another_kind_of_file_is_refused(output: Path, tmp_path: Path) -> None:
    tiny_runs.run(tmp_path / "other.safetensors", epochs=0)
    (tmp_path / "other.safetensors").rename(run_state.path_of(str(output)))
    with pytest.raises(InputError, match="not a state"):
        resume(output)


def test_a_state_of_another_version_is_refused(output: Path) -> None:
    path = run_state.path_of(str(output))
    arrays, meta = safetensors_file.read(path)
    safetensors_file.write(path, arrays, meta=meta | {"partial_version": 1})
    with pytest.raises(InputError, match="not a state of this version"):
        resume(output)


def test_the_loss_scale_of_fp16_is_kept(tmp_path: Path) -> None:
    def made(scale: float):
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        model = torch.nn.Linear(2, 2)
        return run_state.Run(
            model=model,
            objective=torch.nn.Module(),
            optimizer=torch.optim.SGD([{"params": [], "names": []}]),
            scaler=scaler,
            ema=None,
            counters=run_state.Counters(epoch=1, step=2),
            device=torch.device("cpu"),
        )

    output = str(tmp_path / "m.safetensors")
    identity = run_state.Identity({"settings": {}}, {"steps": 4})
    run_state.save(output, made(123.0), None, identity)
    run = made(4.0)
    run_state.restore(output, run, identity, steps=4, allow_nonidentical=False)
    assert run.scaler.get_scale() == 123.0
    assert (run.counters.epoch, run.counters.step) == (1, 2)


def test_saving_is_atomic_and_leaves_no_temporary(output: Path, tmp_path: Path) -> None:
    assert {path.name for path in tmp_path.iterdir()} == {
        f"{output.name}.partial",
        f"{output.name}.jsonl",
    }
    assert checkpoint.to_arrays({"a": torch.zeros(2)}, "x.").keys() == {"x.a"}


def test_the_input_that_differs_is_named(output: Path, monkeypatch) -> None:
    real = run_state.restore

    def fed(path, run, identity, *, digest: str, **given):
        inputs = [{"option": "--teacher", "name": "t.h5", "digest": digest}]
        record = identity.record | {"inputs": [*identity.record["inputs"], *inputs]}
        return real(path, run, dataclasses.replace(identity, record=record), **given)

    monkeypatch.setattr(run_state, "restore", lambda *a, **k: fed(*a, digest="c0ffee" * 10, **k))
    with pytest.raises(InputError, match=r"\(inputs\.--teacher: null -> \"t.h5 c0ffeec0ffee\"\)"):
        resume(output)
