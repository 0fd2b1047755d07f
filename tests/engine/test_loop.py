"""The loop on a toy model: when it validates, saves, stops and refuses to go on."""

import math
from collections.abc import Generator, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from mltool.engine import loop, optim
from mltool.engine.data import Batch
from mltool.engine.log import Log
from mltool.engine.loop import Counters, LoopSettings, Run
from mltool.engine.optim import OptimSettings
from mltool.engine.signals import Stop
from mltool.errors import Interrupted, NumericError

RATES = OptimSettings("sgd", 0.1, 0.0, 0.0, "constant", 0.0)


class Toy(nn.Module):
    """Images [B, 3, 2, 2] to [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(nn.Flatten(), nn.Linear(12, 4), nn.BatchNorm1d(4))
        self.dropout = nn.Dropout(0.5)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.backbone(images.float() / 255))


class Squares(nn.Module):
    """Sum of squares, with a hook to spoil a step."""

    def __init__(self, spoil: Mapping[int, float] | None = None) -> None:
        super().__init__()
        self.calls, self.spoil = 0, spoil or {}
        self.noise: list[float] = []

    def forward(self, streams, model, moment) -> dict[str, torch.Tensor]:
        vectors = model(streams["main"].inputs)
        self.noise.append(torch.rand(()).item())
        value = vectors.square().mean() * self.spoil.get(self.calls, 1.0)
        self.calls += 1
        return {"squares": value, "twice": 2 * value}


def batches(epoch: int, step: int) -> Generator[dict[str, Batch]]:
    number = epoch * 4 + step
    while True:
        generator = torch.Generator().manual_seed(number)
        images = torch.randint(0, 255, (8, 3, 2, 2), dtype=torch.uint8, generator=generator)
        yield {"main": Batch(images, torch.arange(8) % 4, torch.arange(8), torch.zeros(8))}
        number += 1


def settings(**changes: object) -> LoopSettings:
    given = {
        "epochs": 3,
        "seed": 0,
        "precision": "fp32",
        "freeze_bn": False,
        "clip": None,
        "val_every": 1,
        "patience": None,
    }
    return LoopSettings(**given | changes)


class StopAfter(Stop):
    """Asks to stop after some steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    @property
    def requested(self) -> bool:
        self.left -= 1
        return self.left <= 0


class Session:
    """A run and what it was asked to keep."""

    def __init__(self, objective: nn.Module | None = None, model: nn.Module | None = None) -> None:
        self.model, self.objective = model or Toy(), objective or Squares()
        self.run = Run(
            model=self.model,
            objective=self.objective,
            optimizer=optim.create(self.model, self.objective, RATES, pretrained=False),
            scaler=torch.amp.GradScaler("cpu", enabled=False),
            ema=None,
            counters=Counters(),
            device=torch.device("cpu"),
        )
        self.stop = Stop()
        self.saves: list[tuple[int, int]] = []
        self.kept: list[int] = []
        self.validated: list[int] = []

    def fit(self, scores=None, *, log: str | None = None, save_every: float = 1e9, **changes):
        def validate() -> float:
            self.validated.append(self.run.counters.epoch)
            return scores[self.run.counters.epoch]

        with Log(log) as opened:
            loop.fit(
                self.run,
                steps=4,
                batches=batches,
                settings=settings(**changes),
                rates=RATES,
                save=lambda: self.saves.append((self.run.counters.epoch, self.run.counters.step)),
                save_every=save_every,
                validate=validate if scores is not None else None,
                keep_best=lambda: self.kept.append(self.run.counters.epoch),
                stop=self.stop,
                log=opened,
            )


def test_every_step_of_every_epoch_is_taken_and_logged(tmp_path: Path) -> None:
    session = Session()
    session.fit(log=str(tmp_path / "log"))
    assert session.objective.calls == 12
    assert (session.run.counters.epoch, session.run.counters.step) == (3, 0)
    lines = (tmp_path / "log").read_text().splitlines()
    assert len(lines) == 36
    assert '"step": 5, "epoch": 1, "name": "loss"' in lines[12]
    loss, one, two = (float(line.rpartition(" ")[2][:-1]) for line in lines[:3])
    assert loss == pytest.approx(one + two, rel=1e-6)
    assert session.saves == []


def test_no_epochs_leave_the_model_as_it_is() -> None:
    session = Session()
    before = {k: v.clone() for k, v in session.model.state_dict().items()}
    session.fit(epochs=0)
    assert all(torch.equal(before[k], v) for k, v in session.model.state_dict().items())


def test_a_step_does_what_torch_would_do() -> None:
    session = Session()
    twin = Toy()
    session.fit(epochs=1, clip=0.01)
    optimizer = torch.optim.SGD(twin.parameters(), lr=0.1)
    stream = batches(0, 0)
    for number in range(4):
        torch.manual_seed(hash((0, number, 0)))
        value = 3 * twin(next(stream)["main"].inputs).square().mean()
        optimizer.zero_grad()
        value.backward()
        nn.utils.clip_grad_norm_(twin.parameters(), 0.01)
        optimizer.step()
    for key, value in twin.state_dict().items():
        torch.testing.assert_close(value, session.model.state_dict()[key])


def test_dropout_is_a_function_of_seed_and_step() -> None:
    whole = Session()
    whole.fit()
    late = Session()
    late.run.counters = Counters(epoch=1, step=2)
    torch.rand(77)
    late.fit()
    assert late.objective.noise == whole.objective.noise[6:]
    assert len(set(whole.objective.noise)) == 12
    other = Session()
    other.fit(seed=1)
    assert not set(other.objective.noise) & set(whole.objective.noise)


@pytest.mark.parametrize("poison", [math.nan, math.inf])
def test_a_loss_that_is_not_finite_stops_before_the_step(poison: float) -> None:
    session = Session(Squares({5: poison}))
    with pytest.raises(NumericError, match="lower --lr"):
        session.fit()
    assert (session.run.counters.epoch, session.run.counters.step) == (1, 1)
    clean = Session()
    clean.stop = StopAfter(5)
    with pytest.raises(Interrupted):
        clean.fit()
    for own, other in zip(session.model.parameters(), clean.model.parameters(), strict=True):
        assert torch.equal(own, other)


def test_embeddings_that_are_nan_stop_a_loss_that_does_not_see_them() -> None:
    class Blind(Squares):
        def forward(self, streams, model, moment):
            vectors = model(streams["main"].inputs) * math.nan
            return {"hinge": torch.where(vectors > 0, vectors, 0.0).sum()}

    session = Session(Blind())
    spoil = session.model.forward
    session.model.forward = lambda images: spoil(images) * math.nan
    with pytest.raises(NumericError, match="embeddings are NaN"):
        session.fit()


class Constant(Toy):
    """Every image gets the same vector."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return super().forward(images) * 0 + torch.ones(4)


def test_collapse_stops_after_some_patience() -> None:
    session = Session(model=Constant())
    with pytest.raises(NumericError, match="all embeddings are the same"):
        session.fit(epochs=50)
    assert session.objective.calls == loop.COLLAPSED_STEPS + 1
    session = Session(model=Constant())
    session.fit(epochs=loop.COLLAPSED_STEPS // 4)  # not long enough to be sure


def test_a_single_image_is_not_a_collapse() -> None:
    class One(nn.Module):
        def forward(self, streams, model, moment):
            return {"x": model(streams["main"].inputs[:1]).sum()}

    model = Constant()
    model.backbone[2] = nn.Identity()
    Session(One(), model).fit(epochs=20)


def test_distances_do_not_collapse_by_a_shift() -> None:
    session = Session()
    vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    for metric, shift, factor, collapsed in (
        ("euclidean", 1000.0, 1.0, False),
        ("euclidean", 1000.0, 1e-3, True),
        ("euclidean", 0.0, 1e-3, False),
        ("euclidean", 0.0, 0.0, True),
        ("cosine", 1000.0, 1.0, True),
        ("cosine", 0.0, 1.0, False),
        ("cosine", 0.0, 0.0, True),
    ):
        session.run.metric = metric
        stepper = loop._Stepper(session.run, settings())
        stepper.vectors = factor * vectors + shift
        assert (float(stepper._spread()) < loop.COLLAPSED_SPREAD[metric]) == collapsed


def test_the_spread_is_by_the_mean_cosine_of_all_pairs() -> None:
    session = Session()
    stepper = loop._Stepper(session.run, settings())
    stepper.vectors = torch.randn(7, 5, generator=torch.Generator().manual_seed(0))
    units = nn.functional.normalize(stepper.vectors)
    cosines = (units @ units.T)[~torch.eye(7, dtype=torch.bool)]
    torch.testing.assert_close(stepper._spread(), 1 - cosines.mean())


def test_further_passes_of_a_step_do_not_count_as_its_batch() -> None:
    """Mixed examples are more alike than images: they are no collapse."""
    session = Session()
    session.run.model = nn.Identity()
    stepper = loop._Stepper(session.run, settings())
    batch = torch.eye(4)
    for images in (batch, torch.ones(4, 4)):
        stepper._embed(images)
    assert torch.equal(stepper.vectors, batch)


def test_frozen_statistics_stay() -> None:
    session = Session()
    norm = session.model.backbone[2]
    session.fit(epochs=1, freeze_bn=True)
    assert torch.equal(norm.running_mean, torch.zeros(4))
    assert not torch.equal(norm.weight, torch.ones(4))  # its gain still learns
    assert session.model.dropout.training


def test_validation_comes_when_due_and_keeps_the_best() -> None:
    session = Session()
    session.fit({2: 0.5, 4: 0.7, 5: 0.7}, epochs=5, val_every=2)
    assert session.validated == [2, 4, 5]  # and after the last epoch in any case
    assert session.kept == [2, 4]  # 0.7 again is not better
    assert (session.run.counters.best_score, session.run.counters.best_epoch) == (0.7, 4)
    assert session.saves == [(epoch, 0) for epoch in range(1, 6)]


@pytest.mark.parametrize(
    ("patience", "val_every", "scores", "last"),
    [
        (1, 1, [0.5, 0.6, 0.6, 0.9], 3),
        (2, 1, [0.5, 0.6, 0.6, 0.5, 0.9], 4),
        (2, 1, [0.5, 0.4, 0.6, 0.5, 0.5, 0.9], 5),
        (1, 3, [9, 9, 0.5, 9, 9, 0.4, 9, 9, 0.9], 6),  # never without a validation in between
        (4, 3, [9, 9, 0.5, 9, 9, 0.4, 9, 9, 0.4], 9),
        (1, 1, [math.nan] * 6, 6),
    ],
)
def test_patience(patience: int, val_every: int, scores: list[float], last: int) -> None:
    session = Session()
    session.fit(
        dict(enumerate(scores, 1)), epochs=len(scores), patience=patience, val_every=val_every
    )
    assert session.run.counters.epoch == last


def test_a_run_whose_patience_was_over_takes_no_further_step() -> None:
    session = Session()
    session.run.counters = Counters(epoch=3, step=0, best_score=0.5, best_epoch=1)
    session.fit({}, epochs=9, patience=2)
    assert session.objective.calls == 0
    session.run.counters = Counters(epoch=3, step=1, best_score=0.5, best_epoch=1)
    session.fit({4: 0.0}, epochs=9, patience=2)  # in mid-epoch it was not yet known
    assert session.objective.calls == 3


def test_saving_by_the_clock() -> None:
    session = Session()
    session.fit(save_every=0.0)
    assert len(session.saves) == 12
    assert session.saves[3] == (1, 0)  # never (0, 4): the end of an epoch is the start of the next


@pytest.mark.parametrize("step", [1, 3, 4, 11])
def test_a_request_to_stop_saves_and_raises(step: int) -> None:
    session = Session()
    session.stop = StopAfter(step)
    with pytest.raises(Interrupted, match="--resume"):
        session.fit()
    assert session.saves == [divmod(step, 4)]
    assert session.objective.calls == step


def test_a_request_in_the_last_step_lets_the_run_finish() -> None:
    session = Session()
    session.stop.requested = True
    session.run.counters = Counters(epoch=2, step=3)
    session.fit()
    assert session.saves == [(3, 0)]


def test_the_stream_is_closed_at_the_end_and_on_errors() -> None:
    closed = []

    def watched(epoch: int, step: int) -> Generator[dict[str, Batch]]:
        try:
            yield from batches(epoch, step)
        finally:
            closed.append(True)

    for spoil in ({}, {2: math.nan}):
        session = Session(Squares(spoil))
        try:
            loop.fit(
                session.run,
                steps=4,
                batches=watched,
                settings=settings(),
                rates=RATES,
                save=list,
                save_every=1e9,
                validate=None,
                keep_best=list,
                stop=session.stop,
                log=Log(None),
            )
        except NumericError:
            assert len(closed) == 2
    assert len(closed) == 2
