"""Which device, how many threads and which precision a run uses."""

import os

import torch

from mltool import distributed
from mltool.errors import UsageError


def choose(text: str) -> torch.device:
    """Choose a device by `auto`, `cpu`, `cuda`, `cuda:N` or `mps`; under torchrun one GPU a rank.

    Raises UsageError for what this machine does not have.
    """
    if text == "auto":
        text = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(text)
    except RuntimeError:
        raise UsageError(f"no device {text!r}; use auto, cpu, cuda, cuda:N or mps") from None
    if device.type == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(f"--device {text}: torch sees no CUDA device here; use cpu or auto")
        alone = torch.cuda.device_count() == 1  # Slurm may show each task its own GPU only
        index = device.index
        if index is None:
            index = 0 if alone else distributed.local_rank()
        if index >= torch.cuda.device_count():
            raise UsageError(f"--device cuda:{index}: there are {torch.cuda.device_count()}")
        device = torch.device("cuda", index)
        torch.cuda.set_device(device)
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise UsageError("--device mps: not available here; use cpu or auto")
    elif device.type not in ("cpu", "mps"):
        raise UsageError(f"no device {text!r}; use auto, cpu, cuda, cuda:N or mps")
    return device


def precision(text: str, device: torch.device, *, training: bool, of_head: bool = False) -> str:
    """Resolve `auto`: bf16 where the hardware multiplies it natively, else fp32.

    On a CPU only extraction uses bf16 by itself; training there stays in fp32, where the gain is
    small and batch statistics would feel the rounding. A head multiplies too little to gain.
    """
    if text != "auto":
        return text
    if of_head:
        return "fp32"
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    if device.type == "cpu" and not training and cpu_has_bf16():
        return "bf16"
    return "fp32"


def cpu_has_bf16() -> bool:
    """Return whether the processor multiplies bfloat16 in hardware."""
    features = torch.cpu.get_capabilities()
    return bool(features.get("avx512_bf16") or features.get("amx_bf16") or features.get("bf16"))


def set_threads(count: int | None) -> int:
    """Use `count` CPU threads (None: leave torch's choice); returns the number in use."""
    if count is not None:
        if count < 1:
            raise UsageError(f"--threads {count}: at least 1 is needed")
        torch.set_num_threads(count)
    return torch.get_num_threads()


def make_deterministic() -> None:
    """Ask CUDA for the same bytes every time, at some cost in speed."""
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False


def seed_generators(seed: int, device: torch.device) -> None:
    """Seed what a step draws from by default, on the CPU and on its device.

    `torch.manual_seed` does so for every kind of device, which costs a millisecond a step where
    they are absent: it keeps a traceback of each call.
    """
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)


def autocast(device: torch.device, precision: str) -> torch.autocast:
    """Return a context in which networks compute in bf16 or fp16, if `precision` says so."""
    half = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision)
    return torch.autocast(device.type, half, enabled=half is not None)
