"""Self-supervised tasks in a run: views, the teacher that follows, gathered heads, resuming."""

import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_pretexts import METHODS, make_objective, make_plan
from tiny_runs import Child, hooked, model, runtime
from torch import Tensor
from torch.nn import functional

from mltool.engine.data import Batch
from mltool.engine.momentum import Follower
from mltool.engine.objectives import monitor
from mltool.engine.objectives.monitor import measure_rank, measure_spread
from mltool.engine.training import train
from mltool.models import checkpoint
from mltool.models.modes import switch_to_eval
from mltool.moment import Moment

START = Moment(step=0, epoch=0, steps=5, epochs=3)


def make_batch(*, images: int = 6, small: int = 3) -> Batch:
    """Draw a batch of 2 large views and some small ones."""
    generator = torch.Generator().manual_seed(0)
    sizes = [(2, 16)] + ([(small, 8)] if small else [])
    views = tuple(
        torch.randint(256, (count, images, 3, s, s), generator=generator, dtype=torch.uint8)
        for count, s in sizes
    )
    rows = torch.arange(images)
    return Batch(views[0][0], torch.full((images,), -1), rows, 0 * rows, views=views)


@pytest.mark.parametrize("method", METHODS)
def test_every_view_is_embedded_once(method: str) -> None:
    embedder, passes = model(projection="none", pooling="avg", dim=None), []

    def embed(images: Tensor, **how: object) -> Tensor:
        assert how.pop("raw")
        passes.append((tuple(images.shape), how.get("weights") is not None))
        return embedder(images, raw=True)

    small = 3 if method == "swav" else 0
    objective = make_objective(method, embedder)
    values = objective({"main": make_batch(small=small)}, embed, START)
    assert values.keys() == {method}
    assert objective.remedy == objective.terms["pretext"].pretext.remedy
    student = [((12, 3, 16, 16), False)] + [((18, 3, 8, 8), False)] * (small > 0)
    teacher = [((12, 3, 16, 16), True)] * (method in ("moco", "byol"))
    assert passes == student + teacher


def test_the_loss_is_that_of_the_views_one_by_one() -> None:
    """Of a network without batch statistics; each view by its own pass."""
    embedder = model(projection="none", pooling="avg", dim=None).eval()
    objective, batch = make_objective("swav", embedder), make_batch()
    loss = objective({"main": batch}, embedder, START)["swav"]
    pretext = make_objective("swav", embedder).terms["pretext"].pretext
    vectors = [embedder(view, raw=True) for group in batch.views for view in group]
    projections = pretext.projector(torch.stack(vectors))
    torch.testing.assert_close(loss, pretext(projections, None, START)["swav"])


def test_the_teacher_follows_network_and_projector(tmp_path: Path) -> None:
    plan = make_plan("byol", epochs=2)
    term, forward = plan.objective.terms["pretext"], plan.objective.forward
    leaders = {plan.model: term.encoder, term.pretext.projector: term.projector}
    expected = {of: [p.detach().clone() for p in of.parameters()] for of in leaders}
    differing = []

    def follow_and_check(streams, embed, moment) -> dict[str, Tensor]:
        present = {of: [p.detach().clone() for p in of.parameters()] for of in leaders}
        values = forward(streams, embed, moment)
        m = term.pretext.momentum(moment) if moment.step else 1.0
        for of, follower in leaders.items():
            pairs = zip(expected[of], present[of], strict=True)
            expected[of] = [m * before + (1 - m) * now for before, now in pairs]
            torch.testing.assert_close(list(follower.weights.values()), expected[of])
            pairs = zip(expected[of], present[of], strict=True)
            differing.append(not all(torch.equal(*pair) for pair in pairs))
        return values

    plan.objective.forward = follow_and_check
    train(plan, runtime(tmp_path / "m.safetensors", log=None))
    assert differing == [False, False] + [True] * 18


def test_a_follower_is_no_parameter_and_leaves_statistics_alone() -> None:
    embedder = model(projection="none", pooling="avg", dim=None).train()
    follower = Follower(embedder)
    assert not list(follower.parameters())
    assert follower.weights.keys() == dict(embedder.named_parameters()).keys()
    images = torch.randint(256, (4, 3, 16, 16)).float()
    before = {n: b.clone() for n, b in embedder.named_buffers() if "running" in n}
    with torch.no_grad():
        for weight in follower.weights.values():
            weight.mul_(1.5)
    vectors = follower.embed(
        lambda weights: torch.func.functional_call(embedder, dict(weights), (images,))
    )
    assert not vectors.requires_grad
    assert before
    assert all(torch.equal(b, dict(embedder.named_buffers())[n]) for n, b in before.items())
    with switch_to_eval(embedder):
        assert not torch.allclose(vectors, embedder(images))


def draw_golden(seed: int) -> Tensor:
    """Draw a weight as tests/golden/make_pretexts.py does."""
    return torch.from_numpy(np.random.RandomState(seed).normal(size=(1, 2)))


def test_a_follower_is_lightlys() -> None:
    golden = json.loads((Path(__file__).parents[2] / "golden/pretexts.json").read_text())
    leader = torch.nn.Linear(2, 1, bias=False).double()
    leader.weight.data = draw_golden(9)
    follower = Follower(leader)
    for step in range(3):
        leader.weight.data = draw_golden(10 + step)
        follower.follow(0.9)
    assert follower.weights["weight"].flatten().tolist() == pytest.approx(
        golden["follow"], abs=1e-12
    )


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_with_the_same_bytes(tmp_path: Path, method: str) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    train(make_plan(method), runtime(whole))

    def work() -> None:
        plan = hooked(
            make_plan(method), lambda n, *_: n == 9 and os.kill(os.getpid(), signal.SIGKILL)
        )
        train(plan, runtime(broken, resume=True, save_every=0.0))

    assert Child(work).wait()[0] == -signal.SIGKILL
    assert not broken.exists()
    train(make_plan(method), runtime(broken, resume=True, save_every=0.0))
    assert broken.read_bytes() == whole.read_bytes()
    logs = [Path(f"{path}.jsonl").read_bytes() for path in (whole, broken)]
    assert logs[0] == logs[1]
    assert b"pretext/rank" in logs[0]


def test_the_checkpoint_has_heads_and_no_teacher(tmp_path: Path) -> None:
    output = tmp_path / "m.safetensors"
    train(make_plan("byol", epochs=1), runtime(output))
    saved = checkpoint.read(str(output))
    assert {key.split(".")[3] for key in saved.objective} == {"projector", "predictor"}
    assert saved.build_model().spec.projection == "none"


def test_frozen_prototypes_stay(tmp_path: Path) -> None:
    plan = make_plan("swav", epochs=1)
    before = functional.normalize(plan.objective.terms["pretext"].pretext.prototypes.detach())
    train(plan, runtime(tmp_path / "m.safetensors", log=None))
    torch.testing.assert_close(plan.objective.terms["pretext"].pretext.prototypes.detach(), before)


@pytest.mark.parametrize(
    ("first", "chance", "count"), [(0, 100.0, 0), (0, 1.0, 1), (9, 1.0, 1), (20, 1.0, 0)]
)
def test_a_run_that_learns_nothing_is_told_once(
    tmp_path: Path, caplog, monkeypatch, first: int, chance: float, count: int
) -> None:
    """A loss of simclr lies between these two values."""
    monkeypatch.setattr(monitor, "FIRST_STEPS", first)
    monkeypatch.setattr(monitor, "LEAST_SPREAD", 0.0)
    output = tmp_path / "m.safetensors"
    plan = make_plan("simclr", epochs=3)
    plan.objective.terms["pretext"].pretext.chance_loss = lambda images: chance
    train(plan, runtime(output))
    said = [record.message for record in caplog.records if "nothing is learned" in record.message]
    assert len(said) == count
    assert all("raise temperature=" in text for text in said)
    assert all(f"after epoch {2 if first else 1} " in text for text in said)
    lines = [json.loads(line) for line in Path(f"{output}.jsonl").read_text().splitlines()]
    ends = [line for line in lines if line["name"] == "pretext/loss"]
    assert [line["step"] for line in ends] == [5, 10, 15]
    losses = [line["value"] for line in lines if line["name"] == "loss"]
    means = [sum(losses[i : i + 5]) / 5 for i in range(0, 15, 5)]
    assert [line["value"] for line in ends] == pytest.approx(means, rel=1e-5)
    below = [line["value"] for line in lines if line["name"] == "pretext/below-chance"]
    assert below == pytest.approx([chance - mean for mean in means], abs=1e-4)


def test_spread_and_rank_by_hand() -> None:
    axes = torch.eye(4).repeat(3, 1)
    both = torch.cat([axes, -axes])
    assert measure_spread(both) == pytest.approx(1.0)
    assert measure_rank(3 * both) == pytest.approx(4.0)
    assert measure_spread(torch.ones(5, 4)) == pytest.approx(0.0, abs=1e-6)
    assert measure_rank(torch.ones(5, 4)) == 0.0
    line = torch.tensor([[1.0, 0.0], [-1.0, 0.0]])
    assert measure_rank(line) == pytest.approx(1.0)
