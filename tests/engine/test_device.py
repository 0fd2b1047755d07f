"""Devices, precision and threads, as far as a machine without a GPU can tell."""

import pytest
import torch

from mltool.engine import device
from mltool.errors import UsageError

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)


def test_auto_and_cpu() -> None:
    assert device.choose("cpu") == CPU
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert device.choose("auto").type == expected


@pytest.mark.parametrize("text", ["gpu", "cuda:x", "", "meta", "xla", "cpu:cuda"])
def test_unknown_devices_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="no device"):
        device.choose(text)


def test_absent_devices_are_refused(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    for text in ("cuda", "cuda:1", "mps"):
        with pytest.raises(UsageError, match=f"--device {text}: .*use cpu or auto"):
            device.choose(text)


def test_ranks_take_their_own_gpu(monkeypatch) -> None:
    chosen = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    monkeypatch.setenv("LOCAL_RANK", "2")
    assert device.choose("auto") == torch.device("cuda", 2)
    assert device.choose("cuda:1") == torch.device("cuda", 1)
    assert chosen == [torch.device("cuda", 2), torch.device("cuda", 1)]
    monkeypatch.setenv("LOCAL_RANK", "4")
    with pytest.raises(UsageError, match="cuda:4: there are 4"):
        device.choose("cuda")


@pytest.mark.parametrize("text", ["fp32", "bf16", "fp16"])
def test_a_precision_that_was_asked_for_is_taken(text: str) -> None:
    assert device.precision(text, CPU, training=True) == text


@pytest.mark.parametrize(
    ("on", "training", "native", "expected"),
    [
        (CPU, True, True, "fp32"),
        (CPU, False, True, "bf16"),
        (CPU, False, False, "fp32"),
        (CUDA, True, True, "bf16"),
        (CUDA, True, False, "fp32"),
        (CUDA, False, True, "bf16"),
        (torch.device("mps"), False, True, "fp32"),
    ],
)
def test_automatic_precision(on, training, native, expected, monkeypatch) -> None:
    monkeypatch.setattr(device, "cpu_has_bf16", lambda: native)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: native)
    assert device.precision("auto", on, training=training) == expected


def test_the_processor_is_asked() -> None:
    assert isinstance(device.cpu_has_bf16(), bool)


def test_threads() -> None:
    before = torch.get_num_threads()
    try:
        assert device.set_threads(2) == torch.get_num_threads() == 2
        assert device.set_threads(None) == 2
        for count in (0, -1):
            with pytest.raises(UsageError, match="--threads"):
                device.set_threads(count)
    finally:
        torch.set_num_threads(before)


def test_deterministic(monkeypatch) -> None:
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    before = torch.backends.cudnn.benchmark
    try:
        device.make_deterministic()
        assert torch.are_deterministic_algorithms_enabled()
    finally:
        torch.use_deterministic_algorithms(False)
        torch.backends.cudnn.benchmark = before


@pytest.mark.parametrize("seed", [0, 7, -5, 2**62])
def test_a_seeded_generator_is_torchs(seed: int) -> None:
    torch.manual_seed(seed)
    expected = torch.rand(3)
    device.seed_generators(seed, torch.device("cpu"))
    assert torch.equal(torch.rand(3), expected)
