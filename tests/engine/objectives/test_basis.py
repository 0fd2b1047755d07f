"""Terms of a basis: a step by hand, the warm-up, weights, and a resumed run."""

from pathlib import Path

import pytest
import torch
from tiny_runs import hooked, interrupted, kill_until_done, moment, plan, run, runtime
from tiny_students import STREAM, build_terms, student
from torch import Tensor, nn
from torch.nn import functional

from mltool.commands.objective import Additions
from mltool.components import parse
from mltool.engine import optim
from mltool.engine.data import Batch
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.optim import OptimSettings
from mltool.engine.training import train

DIM, COUNT = 4, 10
NAMES = ["contrastive", "slade/classes", "slade/pairs", "unlabeled/contrastive"]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def draw(seed: int, *, weights: Tensor | None = None, classes: int = 3) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(COUNT, DIM, generator=generator, dtype=torch.float64)
    rows = torch.arange(COUNT)
    columns = {} if weights is None else {"weight": weights}
    return Batch(inputs, rows % classes, rows, torch.zeros_like(rows), columns=columns)


def build(basis: str, **settings: object) -> tuple[Objective, nn.Linear]:
    torch.manual_seed(0)
    objective = build_terms(basis, classes=3, pseudo_classes=3, dim=DIM, **settings).double()
    return objective, nn.Linear(DIM, DIM).double()


def embed_with(model: nn.Linear):
    return lambda inputs, **how: functional.normalize(model(inputs))


def test_a_step_is_the_equations_by_hand() -> None:
    objective, model = build("slade:warmup=none,weight=0.25")
    basis = objective.terms["basis"].basis
    batches = [{"main": draw(2 * n), STREAM: draw(2 * n + 1)} for n in range(2)]
    objective(batches[0], embed_with(model), moment(0))
    begun = basis.statistics.clone()
    values = objective(batches[1], embed_with(model), moment(1))
    f, g = (functional.normalize(model(batches[1][name].inputs)) for name in ("main", STREAM))
    y = batches[1]["main"].labels
    same = y[:, None] == y
    apart = ~torch.eye(COUNT, dtype=torch.bool)
    sim = f @ f.T
    each = torch.where(same, -sim, (sim - 0.5).relu()) * apart
    cross = functional.cross_entropy(f @ basis.vectors.T, y)
    responses = g @ basis.vectors.T
    scores = functional.cosine_similarity(responses[:, None], responses[None], dim=-1)
    above = torch.ones_like(same).triu(1)
    batch = [(s.mean(), s.var(correction=0)) for s in (scores[above & same], scores[above & ~same])]
    mu, v = ([0.01 * batch[side][k] + 0.99 * begun[side, k] for side in (0, 1)] for k in (0, 1))
    separation = (mu[1] - mu[0] + 0.5).relu() + v[0] + v[1]
    pulled, pushed = (scores >= mu[0]) & apart, (scores <= mu[1]) & apart
    sim = g @ g.T
    mined = torch.where(pulled, -sim, 0) + torch.where(pushed, (sim - 0.5).relu(), 0)
    mined = mined * (mu[0] > mu[1])
    expected = [each.sum(1).mean(), 0.25 * cross, 0.25 * separation, mined.sum(1).mean()]
    assert list(values) == NAMES
    for value, wanted in zip(values.values(), expected, strict=True):
        torch.testing.assert_close(value, wanted)
    assert bool(mu[0] > mu[1])
    assert pulled.any()
    assert pushed.any()


def test_an_image_that_a_batch_repeats_is_not_mined() -> None:
    """It would be most of what is pulled where pseudo-classes are small."""
    objective, model = build("slade:warmup=none")
    twice = torch.arange(COUNT // 2).repeat(2)
    inputs, labels = draw(1).inputs[twice], draw(1).labels[twice]
    repeated = Batch(inputs, labels, twice, torch.arange(COUNT))
    for step in range(2):
        values = objective({"main": draw(0), STREAM: repeated}, embed_with(model), moment(step))
    g = functional.normalize(model(inputs))
    scores, mean = (
        objective.terms["basis"].basis.score(g),
        objective.terms["basis"].basis.statistics,
    )
    differs = twice[:, None] != twice
    pulled = (scores >= mean[0, 0]) & differs
    pushed = (scores <= mean[1, 0]) & differs
    sim = g @ g.T
    mined = torch.where(pulled, -sim, 0) + torch.where(pushed, (sim - 0.5).relu(), 0)
    torch.testing.assert_close(values["unlabeled/contrastive"], mined.sum(1).mean())
    assert mean[0, 0] > mean[1, 0]
    assert pulled.any()


def test_the_gradient_reaches_model_and_basis_in_full() -> None:
    objective, model = build("slade:warmup=none")
    for step in range(2):
        values = objective({"main": draw(0), STREAM: draw(1)}, embed_with(model), moment(step))
        gradient = torch.autograd.grad(
            values["slade/pairs"], [objective.terms["basis"].basis.vectors, model.weight]
        )
        assert all(each.norm() > 1e-2 for each in gradient)


def test_the_model_stands_still_while_the_basis_warms_up() -> None:
    objective, model = build("slade:warmup=2", steps=20)
    assert objective.warmup == 2
    for step in range(3):
        values = objective({"main": draw(0), STREAM: draw(1)}, embed_with(model), moment(step))
        assert list(values) == NAMES
        model.zero_grad()
        objective.zero_grad()
        torch.stack(list(values.values())).sum().backward()
        assert (model.weight.grad is None) == (step < 2)
        assert objective.terms["basis"].basis.vectors.grad.norm() > 0


def test_the_model_of_a_run_learns_when_the_warm_up_has_ended(tmp_path: Path) -> None:
    one = plan(freeze_bn=True, **student("slade:warmup=3"))
    states: list[tuple[Tensor, Tensor]] = []

    def keep(number: int, streams: object, embed: object) -> None:
        basis = one.objective.terms["basis"].basis
        states.append(
            (
                torch.cat([p.detach().flatten() for p in one.model.parameters()]),
                basis.vectors.clone(),
            )
        )

    train(hooked(one, keep), runtime(tmp_path / "m.safetensors"))
    still = [torch.equal(states[n][0], states[n + 1][0]) for n in range(5)]
    assert still == [True, True, True, False, False]
    assert not any(torch.equal(states[n][1], states[n + 1][1]) for n in range(5))


def test_the_weight_of_an_image_multiplies_its_cross_entropy() -> None:
    weights = torch.linspace(0, 2, COUNT)
    objective, model = build("slade:warmup=none,weight=1")
    batches = {"main": draw(0, weights=weights), STREAM: draw(1)}
    value = objective(batches, embed_with(model), moment())["slade/classes"]
    basis = objective.terms["basis"].basis
    f = functional.normalize(model(batches["main"].inputs))
    each = functional.cross_entropy(f @ basis.vectors.T, draw(0).labels, reduction="none")
    torch.testing.assert_close(value, (weights * each).mean())
    assert objective.columns() == objective.columns(STREAM) == ["weight"]


def test_the_basis_is_saved_once_and_learns_at_a_rate_of_its_own() -> None:
    objective, model = build("slade")
    assert sorted(objective.state_dict()) == [
        f"terms.basis.basis.{name}" for name in ("batches", "statistics", "vectors")
    ]
    settings = OptimSettings("sgd", 0.1, 1e-4, 0.9, "cosine", 0.0, {"basis": 0.7})
    groups = optim.create(model, objective, settings, pretrained=False).param_groups
    (group,) = [group for group in groups if group["group"] == "basis"]
    assert group["names"] == ["objective.terms.basis.basis.vectors"]
    assert group["lr"] == 0.7


@pytest.mark.parametrize(
    ("basis", "loss"), [("slade:warmup=3", "multi-similarity"), (None, "proxy-anchor")]
)
def test_a_student_interrupted_ends_with_the_same_bytes(
    tmp_path: Path, basis: str | None, loss: str
) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    expected = run(whole, **student(basis, loss))
    for at in (2, 3, 4):
        interrupted(broken, at, **student(basis, loss))
    assert run(broken, run_time={"resume": True}, **student(basis, loss)) == expected
    assert Path(f"{whole}.jsonl").read_text() == Path(f"{broken}.jsonl").read_text()
    kill_until_done(
        tmp_path / "killed.safetensors", kills=3, seed=5, seconds=0.5, **student(basis, loss)
    )
    assert (tmp_path / "killed.safetensors").read_bytes() == expected


def test_without_a_basis_the_second_stream_has_all_that_the_first_has() -> None:
    additions = Additions(
        miner=parse("miners", "hard"),
        memory=MemorySettings(30),
        mixup=parse("mixups", "embedding"),
    )
    objective = build_terms(None, additions=additions, classes=3, pseudo_classes=3, dim=DIM)
    model = nn.Linear(DIM, DIM)
    for step in range(2):
        batches = {
            name: Batch(b.inputs.float(), b.labels, b.rows, b.draws)
            for name, b in (("main", draw(2 * step)), (STREAM, draw(2 * step + 1)))
        }
        values = objective(batches, embed_with(model), moment(step))
    first = ["contrastive", "contrastive/memory", "contrastive/mixed"]
    assert list(values) == first + [f"unlabeled/{name}" for name in first]
    memories = [objective.terms[key].vectors for key in ("memory", "unlabeled/memory")]
    assert not torch.equal(*memories)
    held = functional.normalize(model(draw(3).inputs.float()))
    torch.testing.assert_close(memories[1][COUNT : 2 * COUNT], held)


def test_proxies_of_pseudo_labels_are_others_than_those_of_classes() -> None:
    objective = build_terms(None, "proxy-anchor", classes=3, pseudo_classes=7, dim=DIM)
    shapes = {key: tuple(of.shape) for key, of in objective.named_parameters()}
    assert shapes == {
        "terms.0.proxies.weight": (3, DIM),
        "terms.unlabeled/0.proxies.weight": (7, DIM),
    }
    first, second = objective.parameters()
    assert not torch.equal(first, second[:3])
