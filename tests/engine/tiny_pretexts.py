"""Self-supervised runs small enough for tests: digits at 16 pixels, in large and small views."""

import torch
from tiny_runs import SIZE, manifest, model

from mltool import components
from mltool.engine.data import Images, split_views
from mltool.engine.loop import LoopSettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.objectives.pretext import PretextTerm
from mltool.engine.optim import OptimSettings
from mltool.engine.samplers import Shuffled
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan
from mltool.files.history import record
from mltool.models.embedder import Embedder

METHODS = {
    "swav": "swav:prototypes=6,hidden=12,dim=8,queue=24,queue_from=0.4",
    "moco": "moco:queue=40,hidden=12,dim=8,momentum=0.9",
    "byol": "byol:hidden=12,dim=8,momentum=0.9",
    "simclr": "simclr:hidden=12,dim=8",
}


def make_objective(method: str, embedder: Embedder, *, images: int = 80) -> Objective:
    """Build the objective of a task, random by a fixed seed."""
    torch.manual_seed(0)
    term = PretextTerm(components.parse("pretexts", METHODS[method]), model=embedder, images=images)
    return Objective({"pretext": term}, seed=0, generator=torch.Generator())


def make_plan(
    method: str,
    *,
    epochs: int = 3,
    batch: int = 16,
    lr: float = 0.01,
    optimizer: str = "sgd",
    precision: str = "fp32",
    freeze_bn: bool = False,
    small: int | None = None,
) -> TrainingPlan:
    """Make a plan with five steps an epoch; swav sees two small views besides unless said."""
    of, embedder = manifest(), model(projection="none", pooling="avg", dim=None)
    small = 2 * (method == "swav") if small is None else small
    views = components.load("augmentations", f"views:small={small},blur=0", size=SIZE)
    source = Images(of, embedder.spec, split_views(views, 2), seed=0, cache=True)
    settings = {"method": METHODS[method], "epochs": epochs, "batch_size": batch}
    step = record("pretrain", inputs=[], settings=settings, counts={"images": len(of)})
    return TrainingPlan(
        model=embedder,
        objective=make_objective(method, embedder),
        streams=(Stream(MAIN, source, Shuffled(len(of), size=batch, seed=0)),),
        loop=LoopSettings(epochs, 0, precision, freeze_bn, None, 1, None),
        optim=OptimSettings(optimizer, lr, 1e-4, 0.9, "cosine", 0.2),
        ema=None,
        pretrained=False,
        validation=None,
        classes=(),
        history=(step,),
    )
