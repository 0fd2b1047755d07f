"""A step of each self-supervised task against lightly's, on the same views and network.

    python recipes/bench/pretrain.py --lightly ENV/lib/python3.11/site-packages

lightly is no dependency: `--lightly` names the folder that it is installed in. Without it, or where
it is missing, only ours is measured. A step is forward, backward and SGD; ratios are theirs / ours,
so above 1 we are faster.
"""

import importlib.util
import itertools
import sys
from collections.abc import Callable, Mapping

import _arguments
import _report
import torch
from torch import Tensor
from torch.func import functional_call

from mltool import components
from mltool.engine import optim
from mltool.engine.data import Batch
from mltool.engine.objectives.objective import Objective
from mltool.engine.objectives.pretext import PretextTerm
from mltool.engine.optim import OptimSettings
from mltool.models.embedder import Embedder, build
from mltool.moment import Moment

METHODS = {
    "swav": "swav:queue=0,freeze_epochs=0",
    "moco": "moco:queue=4096",
    "byol": "byol",
    "simclr": "simclr",
}
SMALL_VIEWS = {"swav": 4}


def build_network(arch: str, size: int) -> Embedder:
    """Build the network that both train."""
    model = build(
        arch,
        pooling="avg",
        projection="none",
        dim=None,
        image_size=size,
        resize=size,
        weights=None,
        seed=0,
    )
    return model.train().to(memory_format=torch.channels_last)


def draw_views(method: str, batch: int, size: int) -> tuple[Tensor, ...]:
    """Draw views of random pixels: two large ones, and small ones where the task takes them."""
    shapes = [(2, size)] + [(count, size // 2) for count in [SMALL_VIEWS.get(method, 0)] if count]
    return tuple(
        torch.randint(256, (count, batch, 3, side, side), dtype=torch.uint8)
        for count, side in shapes
    )


def prepare_ours(method: str, arch: str, batch: int, size: int) -> Callable[[], None]:
    """Return a call that takes one step of ours."""
    model, views = build_network(arch, size), draw_views(method, batch, size)
    term = PretextTerm(components.parse("pretexts", METHODS[method]), model=model, images=10**6)
    objective = Objective({"pretext": term}, seed=0, generator=torch.Generator())
    settings = OptimSettings("sgd", 0.01, 1e-4, 0.9, "constant", 0.0)
    optimizer = optim.create(model, objective, settings, pretrained=False)
    rows = torch.arange(batch)
    loaded = {"main": Batch(views[0][0], torch.full((batch,), -1), rows, rows, views=views)}
    numbers = itertools.count()

    def embed(images: Tensor, *, weights: Mapping[str, Tensor] | None = None, raw: bool) -> Tensor:
        if weights is None:
            return model(images, raw=raw)
        return functional_call(model, dict(weights), (images,), {"raw": raw})

    def step() -> None:
        terms = objective(loaded, embed, Moment(next(numbers), epoch=0, steps=10**6, epochs=1))
        take_step(optimizer, torch.stack(list(terms.values())).sum())

    return step


def prepare_theirs(method: str, arch: str, batch: int, size: int) -> Callable[[], None]:
    """Return a call that takes one step as lightly's examples do."""
    from _lightly_steps import BUILDERS

    model, views = build_network(arch, size), draw_views(method, batch, size)
    compute_loss, parameters = BUILDERS[method](model, model.spec.dim)
    every = [*model.parameters(), *parameters]
    optimizer = torch.optim.SGD(every, 0.01, momentum=0.9, weight_decay=1e-4, fused=True)
    single = [view for group in views for view in group]
    return lambda: take_step(optimizer, compute_loss(single))


def take_step(optimizer: torch.optim.Optimizer, loss: Tensor) -> None:
    """Go down the gradient of a loss, and read it as a log does."""
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    loss.item()


def compare(
    report: _report.Report, method: str, arch: str, batch: int, size: int, *, rounds: int
) -> None:
    """Measure some steps of both in turns, or of ours alone."""
    ours = prepare_ours(method, arch, batch, size)
    sizes = {"method": method, "arch": arch, "batch": batch, "size": size}
    steps = range(3 if rounds else 1)

    def measure(step: Callable[[], None]) -> float:
        return _report.count_seconds(lambda: [step() for _ in steps]) / len(steps)

    if importlib.util.find_spec("lightly") is None:
        measure(ours)
        seconds = min(measure(ours) for _ in range(max(1, rounds)))
        report.append("pretrain", **sizes, ours_s=round(seconds, 4))
        return
    theirs = prepare_theirs(method, arch, batch, size)
    figures = _report.measure_in_turns(
        lambda: measure(ours), lambda: measure(theirs), rounds=rounds
    )
    rates = {
        f"{who}_images_per_s": round(batch / figures[f"{who}_s"], 1) for who in ("ours", "theirs")
    }
    report.append("pretrain", **sizes, **figures, **rates)


def main() -> None:
    parser = _arguments.make_parser(__doc__)
    parser.add_argument("methods", nargs="*", metavar="METHOD", default=list(METHODS))
    parser.add_argument("--lightly", metavar="FOLDER", help="where lightly is installed")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.lightly:
        sys.path.append(arguments.lightly)
    report = _report.Report(arguments.smoke)
    for method in arguments.methods:
        if arguments.smoke:
            compare(report, method, "test_resnet", 4, 16, rounds=0)
        else:
            compare(report, method, "resnet18", 32, 64, rounds=arguments.rounds)


if __name__ == "__main__":
    main()
