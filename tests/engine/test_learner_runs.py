"""Learners of parts: one of them is plain training, idle ones stand still, kills change nothing."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_learners import CLUSTERS, build_learners, divide
from tiny_runs import hooked, plan, runtime, stopping

from mltool.engine.data import LEARNER, Batch
from mltool.engine.training import train
from mltool.errors import Interrupted
from mltool.files import safetensors_file
from mltool.moment import Moment

ONE = np.zeros(80, np.int64)


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def weights(given, output: Path, **run_time) -> dict[str, np.ndarray]:
    train(given, runtime(output, **run_time))
    return safetensors_file.read(str(output))[0]


@pytest.mark.parametrize(
    "settings",
    [
        {"loss": "margin", "clip": 1.0},
        {"loss": "proxy-anchor"},
        {"loss": "margin", "miner": "distance-weighted", "optimizer": "sgd"},
        {"loss": "contrastive", "memory": 30, "ema": 0.9},
    ],
    ids=lambda settings: settings["loss"],
)
def test_a_single_learner_is_plain_training(tmp_path: Path, settings: dict) -> None:
    settings = {"precision": "fp64", "epochs": 2} | settings
    plain = weights(plan(**settings), tmp_path / "plain")
    for parts in ("slices:count=1", "masks:count=1,learn=false"):
        one = weights(divide(parts, ONE, **settings), tmp_path / "one")
        for name, value in plain.items():
            learned = one[name.replace("terms.0", "terms.part0/0.term")]
            np.testing.assert_array_equal(learned, value, err_msg=name)


def test_a_learner_moves_its_slice_alone(tmp_path: Path) -> None:
    rows: list[np.ndarray] = []
    given = divide("slices:count=4", optimizer="adam", loss="proxy-anchor")
    objective, projection = given.objective, given.model.after

    def look(number, streams, embed):
        rows.append([block.detach().clone() for block in projection.weight])
        rows[-1] += [
            objective.terms[f"part{k}/0"].term.proxies.weight.detach().clone() for k in range(4)
        ]

    train(hooked(given, look), runtime(tmp_path / "m"))
    for step, (before, after) in enumerate(itertools.pairwise(rows)):
        moved = [not torch.equal(a, b) for a, b in zip(before, after, strict=True)]
        turn = [learner == step % 3 for learner in range(4)]  # the fourth has no cluster
        assert moved == turn * 2, step


@pytest.mark.parametrize("loss", ["margin", "soft-triple"])
def test_the_whole_vector_learns_when_its_time_has_come(tmp_path: Path, loss: str) -> None:
    seen: list[tuple] = []
    given = divide("slices:count=4", full_from=1, merge_from=2, loss=loss)
    model_call = given.model.forward

    def spy(images, **how):
        vectors = model_call(images, **how)
        seen[-1] += (how.get("part"), vectors.shape[1])
        return vectors

    given.model.forward = spy

    def look(number, streams, embed):
        seen.append(({int(CLUSTERS[row]) for row in streams["main"].rows},))

    train(hooked(given, look), runtime(tmp_path / "m"))
    for step, (clusters, part, length, *_) in enumerate(seen):
        if step < 10:
            assert clusters == {step % 3}
        else:
            assert len(clusters) > 1
        assert (part, length) == ((step % 3, 2) if step < 5 else (None, 8))


@pytest.mark.parametrize(
    ("parts", "settings"),
    [
        ("slices:count=4", {"loss": "proxy-anchor", "full_from": 2}),
        ("slices:count=4", {"memory": 20, "loss": "contrastive", "ema": 0.9, "validate": True}),
        ("masks:count=4,freeze_epochs=1", {"merge_from": 2, "optimizer": "sgd"}),
    ],
)
@pytest.mark.parametrize("at", [1, 7])
def test_an_interrupted_run_ends_with_the_same_bytes(
    tmp_path: Path, parts: str, settings: dict, at: int
) -> None:
    whole, output = tmp_path / "whole", tmp_path / "m"
    train(divide(parts, **settings), runtime(whole))
    with pytest.raises(Interrupted):
        train(stopping(divide(parts, **settings), at), runtime(output, resume=True))
    train(divide(parts, **settings), runtime(output, resume=True))
    assert output.read_bytes() == whole.read_bytes()


def test_the_backbone_stands_still_as_long_as_it_shall(tmp_path: Path) -> None:
    states: list[dict[str, torch.Tensor]] = []
    given = divide("masks:count=4,freeze_epochs=2,orthogonality=1", full_from=1)
    model = given.model

    def look(number, streams, embed):
        states.append({name: value.clone() for name, value in model.state_dict().items()})

    train(hooked(given, look), runtime(tmp_path / "m"))

    def moved(first: int, last: int, prefix: str) -> bool:
        old, new = states[first], states[last]
        names = [n for n in old if n.startswith(prefix) and not n.endswith("num_batches_tracked")]
        return any(not torch.equal(old[n], new[n]) for n in names)

    assert not moved(0, 5, "backbone")  # statistics too
    assert moved(0, 5, "after")
    assert moved(0, 5, "parts.weight")
    assert moved(5, 6, "backbone")  # the whole vector is not held
    assert not moved(5, 9, "parts")  # and has no masks


def test_orthogonality_is_for_parts_alone() -> None:
    given = divide("masks:count=4,orthogonality=0.5")
    objective, embedder = given.objective, given.model
    source = given.streams[0].source
    batch = source.__getitems__(given.streams[0].sampler.batch(0, 0))

    def terms(learner: int) -> dict[str, torch.Tensor]:
        columns = {LEARNER: torch.full((len(batch.labels),), learner)}
        seen = dataclasses.replace(batch, columns=columns)
        return objective({"main": seen}, embedder, Moment(0, 0, 5, 3))

    assert list(terms(2)) == ["part2/multi-similarity", "orthogonality"]
    assert terms(2)["orthogonality"].item() == pytest.approx(0.5)  # all masks start alike
    assert list(terms(-1)) == ["whole/multi-similarity"]


def test_the_whole_embedding_does_not_depend_on_masks() -> None:
    given = divide("masks:count=4")
    batch = torch.randint(0, 255, (4, 3, 16, 16))
    model = given.model.eval()
    whole, part = model(batch), model(batch, part=1)
    for mask in model.parts.weight:
        mask.data.normal_()
    assert torch.equal(model(batch), whole)
    assert not torch.equal(model(batch, part=1), part)


def test_losses_of_unnormalised_vectors_and_mixed_inputs_see_the_part() -> None:
    given = divide("slices:count=4")
    objective = build_learners(given.model, "n-pair")
    assert objective.raw
    batch = given.streams[0].source.__getitems__(given.streams[0].sampler.batch(0, 1))
    batch = dataclasses.replace(batch, columns={LEARNER: torch.ones(len(batch.labels), dtype=int)})
    (value,) = objective({"main": batch}, given.model, Moment(1, 0, 5, 3)).values()
    value.backward()
    with_gradient = [block.grad is not None for block in given.model.after.weight]
    assert with_gradient == [False, True, False, False]


def test_a_batch_says_whose_turn_it_is() -> None:
    batch = Batch(torch.zeros(2, 1), torch.zeros(2), torch.arange(2), torch.zeros(2))
    assert batch.learner is None
    for column, learner in (([3, 3], 3), ([0, 0], 0), ([-1, -1], None)):
        assert (
            dataclasses.replace(batch, columns={LEARNER: torch.tensor(column)}).learner == learner
        )
