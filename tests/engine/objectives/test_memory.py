"""Cross-batch memory: what it holds, and that its term is the loss against it, no more."""

import pytest
import torch
from pytorch_metric_learning import losses as pml
from tiny_runs import build_objective, in_turn, moment
from torch import nn

from mltool.engine.data import Batch
from mltool.engine.objectives.memory import Memory, MemorySettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.objectives.step_outputs import BatchSide
from mltool.errors import UsageError

DIM, CLASSES = 6, 4


def rows(count: int, *, seed: int) -> BatchSide:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, DIM, generator=generator)
    labels = torch.randint(CLASSES, (count,), generator=generator)
    return BatchSide(vectors, labels, rows=torch.arange(count))


def batch(count: int, *, seed: int) -> Batch:
    """A batch whose images are the inputs of `Linear`."""
    side = rows(count, seed=seed)
    return Batch(side.vectors, side.labels, torch.arange(count), torch.zeros(count))


def objective(*losses: str, miner: str | None = None, **memory) -> Objective:
    torch.manual_seed(0)
    settings = MemorySettings(**{"size": 64} | memory)
    texts = losses or ["contrastive"]
    return build_objective(*texts, miner=miner, classes=CLASSES, dim=DIM, memory=settings)


def test_the_oldest_make_room() -> None:
    memory = Memory(MemorySettings(5), dim=DIM)
    given = [rows(count, seed=count) for count in (3, 4, 2)]
    every = nn.functional.normalize(torch.cat([side.vectors for side in given]))
    labels = torch.cat([side.labels for side in given])
    for side in given:
        memory.put(side)
    order = torch.roll(torch.arange(5), -int(memory.offset))
    assert torch.equal(memory.vectors[order], every[-5:])
    assert torch.equal(memory.labels[order], labels[-5:])


def test_of_a_batch_larger_than_the_memory_the_last_rows_stay() -> None:
    memory, side = Memory(MemorySettings(3), dim=DIM), rows(8, seed=0)
    memory.put(side)
    assert torch.equal(memory.vectors, nn.functional.normalize(side.vectors[-3:]))


def test_nothing_is_remembered_before_the_start() -> None:
    one, model = objective(size=50, start=2), nn.Linear(DIM, DIM)
    step, memory = in_turn(one), one.terms["memory"]
    for filled in (0, 0, 4, 8):
        values = step(batch(4, seed=0), model)
        assert int((memory.labels >= 0).sum()) == filled
        assert len(values) == 1 + (filled > 4)


def test_the_first_step_is_the_plain_loss_and_its_whole_gradient() -> None:
    """PML's memory holds the batch itself at first, detached, which halves the gradient."""
    model, first = nn.Linear(DIM, DIM), batch(12, seed=1)
    plain = build_objective("contrastive", classes=CLASSES, dim=DIM)
    gradients = []
    for one in (plain, objective()):
        values = in_turn(one)(first, model)
        assert list(values) == ["contrastive"]
        gradients.append(torch.autograd.grad(sum(values.values()), model.weight)[0])
    assert torch.equal(*gradients)


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize(
    ("loss", "theirs"),
    [
        ("multi-similarity", pml.MultiSimilarityLoss(alpha=2, beta=50, base=0.5)),
        ("nca", pml.NCALoss(softmax_scale=1)),
    ],
)
def test_later_steps_add_the_loss_against_the_memory(loss: str, theirs, weight: float) -> None:
    one = objective(loss, weight=weight, size=20)
    model = nn.Linear(DIM, DIM)
    seen = [batch(12, seed=seed) for seed in range(4)]
    with torch.no_grad():
        held = torch.cat([model(b.inputs) for b in seen[:3]])[-20:]
    labels = torch.cat([b.labels for b in seen[:3]])[-20:]
    step = in_turn(one)
    for b in seen[:3]:
        step(b, model)
    values = step(seen[3], model)
    vectors = model(seen[3].inputs)
    wanted = theirs(vectors, seen[3].labels, ref_emb=held, ref_labels=labels)
    torch.testing.assert_close(values[f"{loss}/memory"], weight * wanted, rtol=1e-4, atol=1e-5)
    ours, others = (
        torch.autograd.grad(v, model.weight, retain_graph=True)[0]
        for v in (values[f"{loss}/memory"], weight * wanted)
    )
    torch.testing.assert_close(ours, others, rtol=1e-3, atol=1e-5)


def test_terms_with_proxies_have_no_memory() -> None:
    one, model = objective("contrastive", "proxy-anchor"), nn.Linear(DIM, DIM)
    step = in_turn(one)
    step(batch(8, seed=0), model)
    values = step(batch(8, seed=1), model)
    assert list(values) == ["contrastive", "contrastive/memory", "proxy-anchor"]


def test_the_backward_of_a_step_may_come_after_the_memory_was_filled() -> None:
    step, model = in_turn(objective(size=8)), nn.Linear(DIM, DIM)
    for seed in range(3):
        sum(step(batch(8, seed=seed), model).values()).backward()


def test_the_memory_is_saved_with_the_run() -> None:
    one, other, model = objective(), objective(), nn.Linear(DIM, DIM)
    step = in_turn(one)
    for seed in range(3):
        step(batch(8, seed=seed), model)
    other.load_state_dict(one.state_dict())
    values = [x({"main": batch(8, seed=9)}, model, moment(3)) for x in (one, other)]
    assert len(values[0]) == 2
    assert values[0] == values[1]


@pytest.mark.parametrize(
    ("losses", "miner", "reason"),
    [
        (["lifted-structure"], None, "every image of the batch"),
        (["mutual-information"], None, "not pairs"),
        (["contrastive", "n-pair"], None, "not pairs"),
        (["proxy-anchor"], None, "candidates are proxies"),
        (["contrastive"], "angular", "a whole batch"),
    ],
)
def test_what_cannot_remember_is_refused(losses: list, miner: str | None, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        objective(*losses, miner=miner)
