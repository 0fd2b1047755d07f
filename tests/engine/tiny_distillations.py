"""Distillations small enough for tests: digits at 16 pixels, through the command's own function."""

from pathlib import Path

from mltool.cli import distill, embed, train

DATA = ["digits:train"]
STUDENT = {
    "arch": "test_resnet",
    "image_size": 16,
    "resize": 16,
    "augment": "affine",
    "workers": 0,
    "threads": 1,
    "limit": 120,
    "batch_size": 20,
    "epochs": 2,
    "optimizer": "sgd",
    "lr": 0.01,
    "device": "cpu",
}


def make_teacher(folder: Path) -> dict[str, Path]:
    """A checkpoint and its vectors: of the test crops, and of three views."""
    paths = {name: folder / name for name in ("t.safetensors", "t.h5", "views.h5")}
    settings = STUDENT | {"dim": 8, "epochs": 1, "seed": 7}
    train(DATA, str(paths["t.safetensors"]), **settings)
    how = {"limit": 120, "workers": 0, "device": "cpu", "precision": "fp32", "threads": 1}
    embed(str(paths["t.safetensors"]), DATA, str(paths["t.h5"]), **how)
    views = {"views": 3, "augment": "affine", "seed": 5}
    embed(str(paths["t.safetensors"]), DATA, str(paths["views.h5"]), **how, **views)
    return paths


def learn(output: Path, teacher: Path, *losses: str, **changes) -> bytes:
    """Distill in this process; the bytes of the student, of which rank 1 writes none."""
    settings = STUDENT | {"teacher": str(teacher), "loss": list(losses)} | changes
    distill(DATA, str(output), **settings)
    return output.read_bytes() if output.exists() else b""
