"""Training runs small enough for tests: digits at 16 pixels, timm's test_resnet, a step in 20 ms.

Runs that are to be killed live in forks of the test process: nothing is imported again, so that
a kill and a resume cost a second.
"""

import itertools
import os
import random
import signal
import time
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from mltool import components
from mltool.commands.objective import Additions, Pairing, list_terms
from mltool.engine import run_state
from mltool.engine.data import Images
from mltool.engine.loop import LoopSettings
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import ClassBalanced
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import ExecutionOptions, TrainingPlan, Validation, train
from mltool.errors import Interrupted, MltoolError
from mltool.files import digits
from mltool.files.history import record
from mltool.files.manifest import Manifest
from mltool.files.names import StringArray
from mltool.models import checkpoint
from mltool.models.embedder import Embedder, build
from mltool.moment import Moment
from mltool.options.additions import refuse_additions

SIZE = 16
HELD = {"objective", "streams", "cache", "p", "k"}  # no settings of a record


def manifest(*, classes: range = range(5), each: int = 16) -> Manifest:
    """The first `each` digits of some classes."""
    labels = digits.pixels_and_labels()[1]
    rows = np.sort(np.concatenate([np.flatnonzero(labels == c)[:each] for c in classes]))
    return Manifest(
        names=np.array([digits.name(row).encode() for row in rows]),
        paths=StringArray.from_texts([digits.location(row) for row in rows]),
        labels=np.searchsorted(np.array(classes), labels[rows]),
        label_names=tuple(str(c) for c in classes),
        columns={},
        root="",
    )


def model(**changes: object) -> Embedder:
    settings = {
        "arch": "test_resnet",
        "pooling": "gem",
        "projection": "linear",
        "dim": 8,
        "image_size": SIZE,
        "resize": SIZE,
        "weights": None,
        "seed": 0,
    }
    return build(**settings | changes)


def images(of: Manifest, embedder: Embedder, augment: str = "affine", **settings) -> Images:
    augmentation = components.load("augmentations", augment, size=embedder.spec.crop)
    return Images(of, embedder.spec, augmentation, **{"seed": 0} | settings)


def plan(
    *,
    epochs: int = 3,
    p: int = 4,
    k: int = 4,
    seed: int = 0,
    lr: float = 1e-3,
    optimizer: str = "adamw",
    precision: str = "fp32",
    freeze_bn: bool = False,
    clip: float | None = None,
    ema: float | None = None,
    validate: bool = False,
    val_every: int = 1,
    patience: int | None = None,
    cache: bool = True,
    dropout: float = 0.0,
    size: int = SIZE,
    loss: str = "multi-similarity",
    miner: str | None = None,
    memory: int | None = None,
    mixup: str | None = None,
    objective: nn.Module | None = None,
    streams: tuple[Stream, ...] = (),
) -> TrainingPlan:
    """A plan with five steps an epoch; the settings are its record, as the command's would be."""
    given = {key: value for key, value in locals().items() if key not in HELD}
    arch = f"test_resnet:drop_rate={dropout},drop_path_rate={dropout}" if dropout else "test_resnet"
    embedder = model(arch=arch, image_size=size, resize=size)
    of = manifest()
    torch.manual_seed(seed)
    validation = None
    if validate:
        held_out = images(manifest(classes=range(5, 8), each=6), embedder, "center")
        validation = Validation(held_out, "map@r", batch_size=8, precision="fp32")
    remembered = MemorySettings(memory, weight=0.5, start=2) if memory else None
    settings = {"batch_size": p * k, "classes_per_batch": p, "images_per_class": k} | given
    step = record("train", inputs=[], settings=settings, counts={"images": len(of)})
    sampler = ClassBalanced(of.labels, classes_per_batch=p, images_per_class=k, seed=seed)
    return TrainingPlan(
        model=embedder,
        objective=objective or build_objective(loss, miner=miner, memory=remembered, mixup=mixup),
        streams=(Stream(MAIN, images(of, embedder, seed=seed, cache=cache), sampler), *streams),
        loop=LoopSettings(epochs, seed, precision, freeze_bn, clip, val_every, patience),
        optim=OptimSettings(optimizer, lr, 1e-4, 0.9, "cosine", 0.2),
        ema=ema,
        pretrained=False,
        validation=validation,
        classes=of.label_names,
        history=(step,),
    )


def build_objective(
    *losses: str,
    miner: str | None = None,
    memory: MemorySettings | None = None,
    mixup: str | None = None,
    classes: int = 5,
    dim: int = 8,
    seed: int = 0,
) -> Objective:
    """The objective of `train` for some texts."""
    generator = torch.Generator()
    additions = Additions(
        miner=components.parse("miners", miner) if miner else None,
        memory=memory,
        mixup=components.parse("mixups", mixup) if mixup else None,
    )
    chosen = [components.parse("losses", text) for text in losses]
    size = memory.size if memory is not None else None
    refuse_additions(chosen, miner=miner, memory=size, mixup=mixup, symmetric=True)
    terms = list_terms(chosen, Pairing(), additions, classes=classes, dim=dim, generator=generator)
    return Objective(terms, seed=seed, generator=generator)


def moment(step: int = 0) -> Moment:
    """A step of a long run."""
    return Moment(step, epoch=0, steps=1000, epochs=1)


def in_turn(objective: Objective) -> Callable[..., dict[str, Tensor]]:
    """The objective, called with the steps from 0 on."""
    numbers = itertools.count()
    return lambda batch, model: objective({"main": batch}, model, moment(next(numbers)))


def runtime(output: Path, **changes: object) -> ExecutionOptions:
    settings = {
        "output": str(output),
        "resume": False,
        "allow_nonidentical": False,
        "save_every": 1000.0,
        "log": str(output) + ".jsonl",
        "workers": 0,
        "device": torch.device("cpu"),
    }
    return ExecutionOptions(**settings | changes)


def run(output: Path, *, run_time: dict | None = None, **settings) -> bytes:
    """Train in this process; the bytes of the model."""
    train(plan(**settings), runtime(output, **run_time or {}))
    return output.read_bytes()


def hooked(given: TrainingPlan, hook: Callable) -> TrainingPlan:
    """The plan with `hook(number from 1, streams, embed) -> further terms` in every step."""
    forward, numbers = given.objective.forward, itertools.count(1)

    def both(streams, embed, moment):
        more = hook(next(numbers), streams, embed) or {}
        return forward(streams, embed, moment) | more

    given.objective.forward = both
    return given


def stopping(given: TrainingPlan, step: int, *, number: int = signal.SIGUSR1) -> TrainingPlan:
    """The plan, sending this process a signal in a step."""
    return hooked(given, lambda n, streams, embed: n == step and os.kill(os.getpid(), number))


def interrupted(output: Path, at: int, *, number: int = signal.SIGUSR1, **settings) -> None:
    """Run until step `at`, which a signal interrupts."""
    run_time = settings.pop("run_time", {})
    given = stopping(plan(**settings), at, number=number)
    with pytest.raises(Interrupted, match="--resume"):
        train(given, runtime(output, resume=True, **run_time))
    assert run_state.path_of(str(output)) in map(str, output.parent.iterdir())
    assert not output.exists()


class Child:
    """A fork that calls a function; its status is what the command's would be."""

    def __init__(self, work: Callable[[], object], *, group: bool = False) -> None:
        read, write = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # a fork of a threaded process
            self.pid = os.fork()
        if self.pid:
            os.close(write)
            os.set_blocking(read, False)  # orphaned loaders may hold the other end open
            self._messages = read
            return
        status = 1
        try:
            if group:
                os.setpgid(0, 0)
            work()
            status = 0
        except MltoolError as error:
            os.write(write, f"{type(error).__name__}: {error}".encode())
            status = error.exit_code
        except SystemExit as error:
            status = int(str(error.code))
        except BaseException:
            os.write(write, traceback.format_exc().encode())
        finally:
            os._exit(status)

    def wait(self, *, seconds: float = 60.0) -> tuple[int, str]:
        """Exit status (minus the signal that killed it) and message; one that hangs is killed."""
        deadline = time.monotonic() + seconds
        while not (ended := os.waitpid(self.pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(0.005)
        status = os.waitstatus_to_exitcode(ended[1])
        try:
            message = os.read(self._messages, 100_000).decode()
        except BlockingIOError:
            message = ""
        os.close(self._messages)
        return status, message


def kill_until_done(output: Path, *, kills: int, seed: int, seconds: float, **settings) -> int:
    """Kill -9 a run at random moments, always resuming; return how many kills hit."""
    moments, hits = random.Random(seed), 0
    run_time = {"resume": True, "save_every": 0.0, "workers": settings.pop("workers", 0)}
    for _ in range(kills):
        child = Child(lambda: train(plan(**settings), runtime(output, **run_time)))
        time.sleep(moments.uniform(0.02, seconds))
        os.kill(child.pid, signal.SIGKILL)
        status, message = child.wait()
        assert status in (-9, 0), message
        hits += status == -9
        if output.exists():  # whole or not at all
            checkpoint.read(str(output)).build_model()
    child = Child(lambda: train(plan(**settings), runtime(output, **run_time)))
    status, message = child.wait()
    assert status == 0, message
    return hits


def wait_for(condition: Callable[[], object], *, seconds: float = 20.0) -> None:
    """Poll until a condition holds."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.002)
