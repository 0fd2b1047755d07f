"""Values of self-supervised losses by lightly 1.6.0 in float64, for tests/pretexts.

    python tests/golden/make_pretexts.py > tests/golden/pretexts.json

Needs lightly, which mltool does not depend on. Inputs are drawn by numpy, see `draw`.
"""

import json

import numpy as np
import torch
from lightly.loss import NegativeCosineSimilarity, NTXentLoss, SwaVLoss
from lightly.loss.swav_loss import sinkhorn
from lightly.models.utils import update_momentum
from torch import Tensor, nn
from torch.nn import functional

torch.set_default_dtype(torch.float64)


def draw(*shape: int, seed: int) -> Tensor:
    """Draw normal numbers that every version of numpy draws alike."""
    return torch.from_numpy(np.random.RandomState(seed).normal(size=shape))


def run_swav(epsilon: float, queue: int) -> float:
    """Return the loss of 2 large and 3 small views of 6 images, 5 prototypes."""
    views = functional.normalize(draw(5, 6, 8, seed=0), dim=-1)
    prototypes = functional.normalize(draw(5, 8, seed=1))
    scores = views @ prototypes.T
    earlier = None
    if queue:
        rows = functional.normalize(draw(2, queue, 8, seed=2), dim=-1)
        earlier = list(rows @ prototypes.T)
    loss = SwaVLoss(temperature=0.1, sinkhorn_iterations=3, sinkhorn_epsilon=epsilon)
    return float(loss(list(scores[:2]), list(scores[2:]), earlier))


def run_moco(symmetric: bool) -> float:
    """Return the loss of 6 images against a queue of 10 keys that stays as it is."""
    queries, keys = draw(2, 6, 8, seed=3), draw(2, 6, 8, seed=4)
    values = []
    for query, key in [(queries[0], keys[1]), (queries[1], keys[0])][: 1 + symmetric]:
        loss = NTXentLoss(temperature=0.2, memory_bank_size=(10, 8))
        loss.memory_bank.bank = functional.normalize(draw(10, 8, seed=5))
        loss.memory_bank.bank_ptr = torch.zeros(1, dtype=torch.int64)
        values.append(float(loss(query, key.detach())))
    return float(np.mean(values))


def run_byol() -> float:
    """Return the loss of predictions and targets of 6 images, in lightly's terms 2 - 2 cos."""
    predictions, targets = draw(2, 6, 8, seed=6), draw(2, 6, 8, seed=7)
    loss = NegativeCosineSimilarity()
    return float(4 + 2 * loss(predictions[0], targets[1]) + 2 * loss(predictions[1], targets[0]))


def run_simclr() -> float:
    """Return the loss of two views of 6 images."""
    views = draw(2, 6, 8, seed=8)
    return float(NTXentLoss(temperature=0.3, memory_bank_size=0)(views[0], views[1]))


def follow() -> list[float]:
    """Return a weight that follows another one for three steps."""
    student, teacher = nn.Linear(2, 1, bias=False), nn.Linear(2, 1, bias=False)
    teacher.weight.data = draw(1, 2, seed=9)
    for step in range(3):
        student.weight.data = draw(1, 2, seed=10 + step)
        update_momentum(student, teacher, m=0.9)
    return teacher.weight.flatten().tolist()


print(
    json.dumps(
        {
            "sinkhorn": sinkhorn(draw(6, 5, seed=20), iterations=3, epsilon=0.5).tolist(),
            "swav": run_swav(0.05, 0),
            "swav_epsilon": run_swav(0.5, 0),
            "swav_queue": run_swav(0.05, 9),
            "moco": run_moco(symmetric=False),
            "moco_symmetric": run_moco(symmetric=True),
            "byol": run_byol(),
            "simclr": run_simclr(),
            "follow": follow(),
        },
        indent=1,
    )
)
