"""How often a mixed example is pulled: against the formula where it is exact, and against loops."""

import dataclasses
import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from tiny_runs import model as tiny_model
from torch import Generator, Tensor, nn
from typer.testing import CliRunner, Result

from mltool import components
from mltool.cli import positivity, train
from mltool.commands.positivity import _term
from mltool.datasets import open_data
from mltool.engine.data import Batch
from mltool.engine.mixed_positivity import LAMBDAS, Curve, as_text, measure, threshold
from mltool.engine.objectives import mixing
from mltool.engine.objectives.pair_loss import PairTerm, build_pairs
from mltool.engine.objectives.step_outputs import BatchSide, Comparison
from mltool.errors import InputError, UsageError
from mltool.files.digits import pixels_and_labels
from mltool.models import checkpoint

LABELS = torch.arange(24) % 6


class Given(nn.Module):
    """Its images are the vectors."""

    def forward(self, images: Tensor, *, tap: object = None) -> Tensor:
        return nn.functional.normalize(images)


def batches(count: int = 4, *, dim: int = 3) -> list[Batch]:
    generator = Generator().manual_seed(0)
    rows = torch.arange(24)
    return [
        Batch(torch.randn(24, dim, generator=generator), LABELS, rows, torch.zeros_like(rows))
        for _ in range(count)
    ]


def curve(loss: str, settings: str = "", *, given: list[Batch] | None = None) -> Curve:
    torch.manual_seed(0)
    return measure(
        Given(),
        batches() if given is None else given,
        PairTerm(components.parse("losses", loss), classes=6, dim=3),
        components.load("mixups", f"embedding:{settings}")(),
        level="embedding",
        seed=0,
    )


@pytest.mark.parametrize(
    "loss",
    [
        "multi-similarity",
        "multi-similarity:alpha=17.97,beta=75.66,base=0.77",
        "proxy-anchor:average=all",
        "contrastive",
        "contrastive:margin=0.2",
    ],
)
def test_of_a_single_mixed_example_the_formula_is_exact(loss: str) -> None:
    found = curve(loss, "per_anchor=1,negatives=random")
    assert found.share == LAMBDAS
    assert found.examples == (4 * 24 if "proxy" not in loss else 4 * 6)
    assert found.closed_form is not None
    np.testing.assert_allclose(found.empirical, found.closed_form, atol=1e-12)
    assert len(set(found.empirical)) > 2
    assert found.empirical[-1] == 1


def test_binomial_deviance_as_a_set_follows_the_formula_nearly() -> None:
    found = curve("binomial-deviance:form=set,alpha=17.97,beta=75.66,base=0.4", "per_anchor=1")
    assert found.closed_form is not None
    np.testing.assert_allclose(found.empirical, found.closed_form, atol=0.05)


def test_several_mixed_examples_share_their_pull_and_push() -> None:
    """By the derivative of log(1 + sum), written out."""
    alpha, beta, base = 2.0, 50.0, 0.5
    found = curve("multi-similarity", "per_anchor=5", given=batches(1))
    side = BatchSide(nn.functional.normalize(batches(1)[0].inputs), LABELS)
    pairs = build_pairs(side, side)
    mixup = components.load("mixups", "embedding:per_anchor=5")()
    compared = Comparison(side, side, pairs)
    mixture = mixing.draw_mixture(compared, mixup, generator=Generator().manual_seed(0))
    for number, share in enumerate(LAMBDAS):
        ones = torch.full_like(mixture.lam, share)
        mixed = mixing.compare_embeddings(mixture._replace(lam=ones), pairs.sim, side.vectors)
        pulled, below = [], []
        for row in mixed.sim.double().tolist():
            pull = [share * math.exp(-alpha * (s - base)) for s in row]
            push = [(1 - share) * math.exp(beta * (s - base)) for s in row]
            slopes = [
                q / (1 + sum(push)) - p / (1 + sum(pull)) for p, q in zip(pull, push, strict=True)
            ]
            pulled += [slope <= 0 for slope in slopes]
            limit = limit_of("multi-similarity", share)
            below += [s <= limit for s in row]
        assert found.empirical[number] == pytest.approx(np.mean(pulled))
        assert found.closed_form[number] == pytest.approx(np.mean(below))


def limit_of(loss: str, lam: float) -> float | None:
    return threshold(components.parse("losses", loss), lam)


def test_thresholds() -> None:
    odds = math.log(0.7 / 0.3)
    assert limit_of("multi-similarity:base=0.6", 0.7) == pytest.approx(0.6 + odds / 52)
    assert limit_of("binomial-deviance:form=set", 0.7) == pytest.approx(0.5 + odds / 42)
    assert limit_of("proxy-anchor:weight=2", 0.7) == pytest.approx(odds / 64)
    assert limit_of("contrastive:margin=0.4", 0.3) == 0.4
    assert limit_of("contrastive", 0.5) == math.inf
    assert limit_of("multi-similarity", 0.0) == -math.inf
    assert limit_of("multi-similarity", 1.0) == math.inf
    for loss in ("binomial-deviance", "triplet", "contrastive:form=distance", "nca", "proxy-nca"):
        assert limit_of(loss, 0.7) is None


def test_losses_without_a_formula_are_measured_only() -> None:
    found = curve("nca:scale=4")
    assert found.closed_form is None
    assert "       -" in as_text(found)
    alone = Batch(torch.eye(3), torch.arange(3), torch.arange(3), torch.zeros(3).long())
    with pytest.raises(InputError, match="nothing to mix"):
        curve("contrastive", given=[alone])


def test_the_model_is_not_changed_and_every_level_is_measured() -> None:
    model = tiny_model(image_size=32, resize=32, dim=8).eval()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    pixels, labels = pixels_and_labels()
    rows = np.flatnonzero(labels < 3)[:16]
    images = torch.from_numpy(pixels[rows]).repeat(1, 4, 4)[:, None].repeat(1, 3, 1, 1)
    numbers = torch.arange(16)
    batch = Batch(images, torch.from_numpy(labels[rows]), numbers, torch.zeros_like(numbers))
    curves = []
    for level in ("input", "feature", "feature:stage=layer2", "embedding:per_anchor=1"):
        mixup = components.load("mixups", level)()
        term = PairTerm(components.parse("losses", "multi-similarity"), classes=3, dim=8)
        found = measure(model, [batch], term, mixup, level=level, seed=0)
        assert found.empirical[0] == 0
        assert found.empirical[-1] == 1
        curves.append(found)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    single = [c for c in curves if c.examples == 16]
    assert len(single) == 2
    for found in single:  # one example of each anchor
        np.testing.assert_allclose(found.empirical, found.closed_form, atol=1e-12)


def call(command: Callable, *words: object) -> Result:
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("positivity") / "model.safetensors"
    done = call(
        train,
        *("digits:train", "-o", path, "--arch", "test_resnet", "--image-size", 16, "-j", 0),
        *("--resize", 16, "--dim", 8, "--epochs", 0, "--loss", "proxy-anchor:alpha=16"),
        *("--loss", "contrastive", "--mixup", "input:per_anchor=2", "-d", "cpu"),
    )
    assert done.exit_code == 0, done.exception
    return path


def test_the_command(trained: Path, tmp_path: Path) -> None:
    few = ("--batches", 2, "-b", 20, "-j", 0, "-d", "cpu")
    picture = tmp_path / "p.png"
    out = call(positivity, trained, "digits:train", *few, "--json", "-o", picture).stdout
    record = json.loads(out)
    assert record["loss"] == "proxy-anchor:margin=0.1,alpha=16.0,average=present"
    assert record["mixup"].startswith("input:pairs=pos-neg,negatives=hardest,per_anchor=2")
    assert (len(record["share"]), len(record["empirical"]), len(record["closed_form"])) == (11,) * 3
    assert record["examples"] == 2 * 5 * 2  # five proxies
    with Image.open(picture) as image:
        assert image.format == "PNG"
    other = ("--loss", "triplet", "--mixup", "embedding")
    text = call(positivity, trained, "digits:test", *few, *other).stdout
    assert text.splitlines()[0].split() == ["lambda", "measured", "closed", "form"]
    assert text.splitlines()[1].split()[2] == "-"


def test_the_proxies_are_the_models(trained: Path) -> None:
    found = checkpoint.read(str(trained))
    term = _term(
        components.parse("losses", "proxy-anchor:alpha=8"), found, open_data(["digits:train"])
    )
    proxies = found.objective["terms.0.proxies.weight"]
    assert torch.equal(term.proxies.weight, proxies)
    # of a distillation, or of mined tuples, of before the keys were the same for all
    old = dataclasses.replace(found, objective={"terms.0.term.proxies.weight": proxies + 1})
    term = _term(
        components.parse("losses", "proxy-anchor:alpha=8"), old, open_data(["digits:train"])
    )
    assert torch.equal(term.proxies.weight, proxies + 1)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["digits:test"], "the classes that it was trained on"),
        (["digits:train", "--loss", "proxy-nca"], "was not trained with proxy-nca"),
        (["digits:train", "--loss", "lifted-structure"], "--mixup has no place here"),
        (["digits:train", "--mixup", "embedding:pairs=pos-pos"], "lambda decides nothing"),
        (["digits:train", "--mixup", "feature:stage=layer9"], "no stage"),
    ],
)
def test_what_is_refused(trained: Path, words: list[str], message: str) -> None:
    done = call(positivity, trained, *words, "-j", 0, "-d", "cpu")
    assert isinstance(done.exception, UsageError)
    assert message in str(done.exception)


LEARNED_LOSS = '''"""Nobody, Nowhere, CVPR 2020."""

import torch
from torch import Tensor, nn

from mltool.losses import Pairs

ANCHORS = "batch"
CANDIDATES = "batch"


class MyLoss(nn.Module):
    """Pull each positive by a learned strength."""

    def __init__(self, *, margin: float = 0.25) -> None:
        super().__init__()
        self.margin = margin
        self.strength = nn.Parameter(torch.ones(()))

    def forward(self, pairs: Pairs) -> Tensor:
        push = (pairs.neg * (pairs.sim - self.margin).relu()).sum()
        return push - self.strength * (pairs.pos * pairs.sim).sum()
'''


def test_a_loss_of_a_file_is_asked_for_and_compared_by_its_digest(tmp_path: Path) -> None:
    path, loss = tmp_path / "model.safetensors", tmp_path / "my_loss.py"
    loss.write_text(LEARNED_LOSS)
    tiny = ("--arch", "test_resnet", "--image-size", 16, "--resize", 16, "--dim", 8, "-j", 0)
    call(train, "digits:train", "-o", path, *tiny, "--epochs", 0, "-d", "cpu", "--loss", loss)
    words = (path, "digits:train", "--batches", 1, "-b", 20, "-j", 0, "-d", "cpu")
    asked = str(call(positivity, *words).exception)
    assert "trained with the loss of my_loss.py; say where it is: --loss ./my_loss.py" in asked
    done = call(positivity, *words, "--loss", loss, "--json")
    assert done.exit_code == 0, done.exception
    assert json.loads(done.stdout)["loss"].startswith("my_loss.py@")
    loss.write_text(LEARNED_LOSS.replace("0.25", "0.5"))
    assert "was not trained with my_loss.py@" in str(
        call(positivity, *words, "--loss", loss).exception
    )
