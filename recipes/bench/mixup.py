"""What a step costs with mixed examples: its time over that of the loss alone.

    python recipes/bench/mixup.py

A step is embedding a batch that is there, the losses, backward and the optimizer. `ratio` is that
of the times, with mixup over without; `mixed` is how many mixed examples a step has.
"""

import argparse
from collections.abc import Callable

import _report
import torch

from mltool.engine.data import Batch
from mltool.engine.objectives.objective import Supervised
from mltool.models.embedder import build

LOSSES = ("contrastive", "multi-similarity", "proxy-anchor")
CLASSES, EACH, DIM = 32, 4, 128


def steps(
    arch: str, size: int, loss: str, mixup: str | None, count: int, bare: bool
) -> Callable[[], float]:
    """Seconds of `count` steps of a new model, `bare` without projection, on a batch of 32 x 4."""
    torch.manual_seed(0)
    model = build(
        arch,
        pooling="avg" if bare else "gem",
        projection="none" if bare else "linear",
        dim=None if bare else DIM,
        image_size=size,
        resize=size,
        weights=None,
        seed=0,
    )
    model = model.train().to(memory_format=torch.channels_last)
    objective = Supervised(
        [loss], mining=None, classes=CLASSES, dim=model.spec.dim, seed=0, mixup=mixup
    )
    optimizer = torch.optim.AdamW([*model.parameters(), *objective.parameters()], 1e-4, fused=True)
    rows = torch.arange(CLASSES * EACH)
    images = torch.randint(0, 256, (len(rows), 3, size, size), dtype=torch.uint8)
    batch = Batch(images, rows // EACH, rows, torch.zeros_like(rows))

    def work() -> None:
        for _ in range(count):
            optimizer.zero_grad()
            sum(objective({"main": batch}, model).values()).backward()
            optimizer.step()

    return lambda: _report.seconds(work)


def compare(arch: str, size: int, stage: str, *, bare: bool, count: int, rounds: int) -> None:
    """Every loss and level on one network."""
    levels = {"input": 1, f"feature:stage={stage}": 4, "embedding": 16}
    for loss in LOSSES:
        for level, each in levels.items():
            alone = steps(arch, size, loss, None, count, bare)
            figures = _report.in_turns(
                alone, steps(arch, size, loss, level, count, bare), rounds=rounds
            )
            anchors = CLASSES if loss == "proxy-anchor" else CLASSES * EACH
            _report.append(
                "mixup", arch=arch, size=size, loss=loss, level=level, mixed=anchors * each,
                steps=count, **figures,
            )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    compare("resnet10t", 32, "layer2", bare=False, count=10, rounds=rounds)
    compare("mobilenetv2_100", 64, "blocks.4", bare=True, count=4, rounds=rounds)


if __name__ == "__main__":
    main()
