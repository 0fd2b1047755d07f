"""Several streams in a run: whose batch comes when, in one pass or apart, and after a resume."""

import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_runs import (
    images,
    in_turn,
    interrupted,
    kill_until_done,
    manifest,
    model,
    moment,
    plan,
    run,
    runtime,
)
from torch import Tensor, nn

from mltool.commands.objective import Additions, Pairing, build_objective
from mltool.components import parse
from mltool.engine import run_state
from mltool.engine.data import Batch
from mltool.engine.mining import MiningSettings, Tuples, TupleSampler
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.objectives.pair_loss import PairTerm
from mltool.engine.objectives.step_outputs import StepOutputs
from mltool.engine.objectives.teacher_pairs import BatchTuples
from mltool.engine.samplers import EmbedRows, Rows, Sampler, Shuffled
from mltool.engine.streams import MAIN, Stream, read_streams
from mltool.engine.training import train
from mltool.errors import InputError
from mltool.files import safetensors_file


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


class Recorder(Sampler):
    """Counts from 0 on, and keeps what it is asked for."""

    def __init__(self, steps: int, *, follows_model: bool = False) -> None:
        self._steps, self.follows_model = steps, follows_model
        self.asked: list[tuple] = []

    @property
    def steps(self) -> int:
        return self._steps

    @property
    def size(self) -> int:
        return 2

    def summary(self) -> str:
        return "2 counted"

    def begin(self, epoch: int, embed: EmbedRows) -> None:
        if ("begin", epoch) not in self.asked:
            self.asked.append(("begin", epoch))

    def batch(self, epoch: int, step: int) -> Rows:
        self.asked.append((epoch, step))
        return [(epoch, step), (epoch, step)]

    def columns(self, epoch: int, step: int) -> dict[str, np.ndarray]:
        return {"when": np.array([[epoch, step]] * 2)}


class Numbers:
    """A source whose items are the numbers of their rows and draws."""

    manifest = None

    def __getitems__(self, items: Rows) -> Batch:
        rows, draws = torch.tensor(items).T
        return Batch(torch.tensor(items), rows, rows, draws, columns={"weight": rows.float()})

    def as_test(self) -> "Numbers":
        return self


def nothing(source: object) -> EmbedRows:
    return lambda rows: np.empty((len(rows), 0))


def read(*samplers: Sampler, steps: range) -> list[dict[str, Batch]]:
    names = [MAIN, *(f"other{n}" for n in range(1, len(samplers)))]
    streams = [Stream(n, Numbers(), s) for n, s in zip(names, samplers, strict=True)]
    return list(read_streams(streams, steps, workers=0, embed=nothing))


def test_every_stream_goes_its_own_pace() -> None:
    batches = read(Recorder(4), Recorder(3), steps=range(2, 10))
    for step, parts in enumerate(batches, 2):
        assert parts["main"].inputs[0].tolist() == list(divmod(step, 4))
        assert parts["other1"].inputs[0].tolist() == list(divmod(step, 3))
        assert parts["other1"].columns["when"].tolist() == [list(divmod(step, 3))] * 2
        assert parts["other1"].columns["weight"].tolist() == [step // 3] * 2


@pytest.mark.parametrize("follows", [False, True])
def test_an_epoch_begins_before_its_first_batch(follows: bool) -> None:
    sampler = Recorder(3, follows_model=follows)
    streams = [Stream(MAIN, Numbers(), Recorder(4)), Stream("other", Numbers(), sampler)]
    for step, _ in enumerate(read_streams(streams, range(2, 9), workers=0, embed=nothing), 2):
        begun = [epoch for what, epoch in sampler.asked if what == "begin"]
        assert begun[-1] >= step // 3
        assert not follows or begun[-1] == step // 3  # and not while the one before goes on
    order = [("begin", 0), (0, 2)]
    order += [item for e in (1, 2) for item in [("begin", e), *((e, s) for s in range(3))]]
    assert sampler.asked == order


def test_an_epoch_begins_with_the_source_and_the_present_model_at_hand() -> None:
    looked: list[tuple] = []

    class Looking(Recorder):
        def begin(self, epoch: int, embed: EmbedRows) -> None:
            looked.append(embed([1, 2]))

    stream = Stream(MAIN, Numbers(), Looking(3))

    def embed(source: object) -> EmbedRows:
        return lambda rows: (source, rows)  # type: ignore[return-value]

    assert list(read_streams([stream], range(0), workers=0, embed=embed)) == []
    assert looked == []  # nothing is prepared for a run that has no steps left
    next(read_streams([stream], range(1), workers=0, embed=embed))
    assert set(map(str, looked)) == {str((stream.source, [1, 2]))}


def two_streams(kind: str) -> dict:
    """A second stream, of other classes, and a term on it; the settings of `plan`."""
    torch.manual_seed(0)
    others = manifest(classes=range(5, 9), each=9)
    source = images(others, model())
    if kind == "shuffled":
        sampler: Sampler = Shuffled(len(others), size=8, seed=3)
        candidates = None
    else:
        tuples = Tuples(others.labels, MiningSettings(kind, 30, 12, 2), seed=4)
        sampler = TupleSampler(tuples, per_batch=3, full_tuples=True)
        candidates = BatchTuples(4)
    further = PairTerm(
        parse("losses", "contrastive"),
        classes=5,
        dim=8,
        source=candidates,
        name="others",
        stream="others",
    )
    objective = build_objective(
        [parse("losses", "proxy-anchor")],
        Pairing(),
        Additions(),
        model=model(),
        classes=5,
        seed=0,
        further=lambda generator: {"others": further},
    )
    return {"objective": objective, "streams": (Stream("others", source, sampler),)}


@pytest.mark.parametrize("kind", ["shuffled", "random", "hard"])
@pytest.mark.parametrize("workers", [0, 2])
def test_two_streams_interrupted_end_with_the_same_bytes(
    tmp_path: Path, kind: str, workers: int
) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    how = {"workers": workers}
    expected = run(whole, run_time=how, **two_streams(kind))
    for at in (3, 2, 1, 3):
        interrupted(broken, at, run_time=how, **two_streams(kind))
        arrays, _ = safetensors_file.read(run_state.path_of(str(broken)))
        saved = {key for key in arrays if key.startswith("streams.")}
        assert saved == (set() if kind == "shuffled" else STATE)
    assert run(broken, run_time={"resume": True, **how}, **two_streams(kind)) == expected
    assert Path(f"{whole}.jsonl").read_text() == Path(f"{broken}.jsonl").read_text()
    alone = run(tmp_path / "alone.safetensors", loss="proxy-anchor")
    assert alone != expected  # the second stream was not for nothing


STATE = {f"streams.others.{key}" for key in ("epoch", "anchors", "positives", "negatives")}


@pytest.mark.parametrize("kind", ["shuffled", "hard"])
def test_two_streams_killed_end_with_the_same_bytes(tmp_path: Path, kind: str) -> None:
    whole, broken = tmp_path / "whole.safetensors", tmp_path / "broken.safetensors"
    start = time.monotonic()
    expected = run(whole, **two_streams(kind))
    seconds = time.monotonic() - start
    kill_until_done(broken, kills=4, seed=7, seconds=seconds, **two_streams(kind))
    assert broken.read_bytes() == expected


def test_a_state_that_does_not_fit_its_sampler_is_refused(tmp_path: Path) -> None:
    output = tmp_path / "model.safetensors"
    interrupted(output, 2, **two_streams("random"))
    path = run_state.path_of(str(output))
    arrays, meta = safetensors_file.read(path)
    arrays["streams.others.anchors"] = arrays["streams.others.anchors"][:-1]
    safetensors_file.write(path, arrays, meta=meta)
    with pytest.raises(InputError, match="stream others does not fit"):
        train(plan(**two_streams("random")), runtime(output, resume=True))


class Sum(Term):
    """The vectors of a stream, and what else its step holds."""

    def __init__(self, stream: str, *, passes: str = "together", active: bool = True) -> None:
        super().__init__(stream, stream=stream)
        self.passes, self.is_active = passes, active
        self.weight = nn.Parameter(torch.ones(()))
        self.steps: list[StepOutputs] = []

    def active(self, batch: Batch) -> bool:
        return self.is_active

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        self.steps.append(step)
        return {self.name: self.weight * step.vectors.sum()}


def embed_batches(*terms: Sum, sizes: Sequence[tuple[int, int]]) -> tuple[dict, list[Tensor]]:
    """The values of terms on streams of (batch, image) sizes, and the passes of the model."""
    passes: list[Tensor] = []

    def embed(pixels: Tensor) -> Tensor:
        passes.append(pixels)
        return pixels.flatten(1)[:, :2]

    batches = {}
    for number, (term, (count, size)) in enumerate(zip(terms, sizes, strict=True)):
        rows = torch.arange(count)
        pixels = torch.arange(count * 3 * size * size).reshape(count, 3, size, size) + 100 * number
        batches[term.name] = Batch(pixels.float(), rows, rows, rows)
    objective = Objective(
        {str(n): term for n, term in enumerate(terms)}, seed=0, generator=torch.Generator()
    )
    return objective(batches, embed, moment()), passes


def test_streams_of_one_size_go_through_the_model_in_one_pass() -> None:
    terms = [Sum(MAIN), Sum("other"), Sum("large")]
    values, passes = embed_batches(*terms, sizes=[(3, 2), (5, 2), (2, 4)])
    assert [tuple(each.shape) for each in passes] == [(8, 3, 2, 2), (2, 3, 4, 4)]
    for term in terms:
        (step,) = term.steps
        expected = step.batch.inputs.flatten(1)[:, :2]
        assert torch.equal(step.vectors, expected)
        assert values[term.name] == expected.sum()
    apart, passes = embed_batches(Sum(MAIN), Sum("other", passes="apart"), sizes=[(3, 2), (5, 2)])
    assert [len(each) for each in passes] == [3, 5]
    assert apart == {name: values[name] for name in apart}


def test_a_term_that_is_not_active_is_left_out() -> None:
    values, _ = embed_batches(Sum(MAIN), Sum("other", active=False), sizes=[(3, 2), (5, 2)])
    assert list(values) == [MAIN]


def test_terms_declare_the_columns_that_they_read() -> None:
    terms = {"0": Sum(MAIN), "1": Sum("other"), "2": Sum("other")}
    terms["1"].columns, terms["2"].columns = frozenset({"cluster"}), frozenset({"b", "a"})
    objective = Objective(terms, seed=0, generator=torch.Generator())
    assert objective.columns() == []
    assert objective.columns("other") == ["a", "b", "cluster"]
    assert two_streams("shuffled")["objective"].columns("others") == ["weight"]


def test_terms_are_taken_in_the_order_listed() -> None:
    terms = {key: Sum(MAIN) for key in ("b", "a")}
    for key, term in terms.items():
        term.name = key
    objective = Objective(terms, seed=0, generator=torch.Generator())
    rows = torch.arange(2)
    step: Callable[..., dict[str, Tensor]] = in_turn(objective)
    assert list(step(Batch(torch.ones(2, 3), rows, rows, rows), lambda pixels: pixels)) == [
        "b",
        "a",
    ]
