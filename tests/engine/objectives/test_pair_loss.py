"""Terms build pairs of the sides that a loss asks for, with the images' weights."""

import pytest
import torch
from tiny_runs import build_objective, moment
from torch import nn

from mltool.commands.objective import make_distinct
from mltool.components import parse
from mltool.engine.data import Batch
from mltool.engine.objectives.pair_loss import PairTerm, build_pairs
from mltool.engine.objectives.step_outputs import BatchSide
from mltool.errors import UsageError

DIM, CLASSES = 6, 4
ONES, TWOS = torch.ones(12), torch.full((12,), 2.0)


def side(count: int = 12, *, weights: torch.Tensor | None = None) -> BatchSide:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(count, DIM, generator=generator)
    return BatchSide(vectors, torch.arange(count) % CLASSES, weights)


def columns(weights: torch.Tensor | None) -> dict[str, torch.Tensor]:
    return {} if weights is None else {"weight": weights}


def values(loss: str, weights: torch.Tensor | None) -> float:
    torch.manual_seed(0)
    given = build_objective(loss, classes=CLASSES, dim=DIM)
    one = side(weights=weights)
    batch = Batch(
        one.vectors, one.labels, torch.arange(12), torch.zeros(12), columns=columns(weights)
    )
    values = given({"main": batch}, lambda images, **how: images, moment())
    return values[loss.partition(":")[0]].item()


def test_a_batch_against_itself_leaves_out_the_diagonal() -> None:
    one = side()
    pairs = build_pairs(one, one)
    assert not torch.diagonal(pairs.pos + pairs.neg).any()
    assert torch.equal(pairs.pos + pairs.neg, 1 - torch.eye(12))
    other = build_pairs(one, side())  # equal, but not the same
    assert torch.diagonal(other.pos).all()


@pytest.mark.parametrize("loss", ["contrastive", "nca", "proxy-anchor", "arcface"])
def test_equal_weights_of_one_change_nothing(loss: str) -> None:
    assert values(loss, ONES) == values(loss, None)


def test_a_weight_multiplies_the_term_of_its_anchor() -> None:
    weights = torch.tensor([0.0, 0.5, 3.0] * 4)
    term = PairTerm(parse("losses", "contrastive"), classes=CLASSES, dim=DIM)
    plain = build_pairs(*term.sides(side()))
    each = (plain.neg * (plain.sim - 0.5).relu() - plain.pos * plain.sim).sum(dim=1)
    expected = float((weights * each).mean())
    assert values("contrastive", weights) == pytest.approx(expected, rel=1e-5)


def test_an_image_of_weight_zero_is_no_anchor_and_none_of_a_proxy() -> None:
    weights = torch.tensor([0.0] + [1.0] * 11)
    for loss in ("contrastive", "arcface", "proxy-anchor"):
        torch.manual_seed(0)
        given = build_objective(loss, classes=CLASSES, dim=DIM)
        vectors = side().vectors.requires_grad_()
        batch = Batch(
            vectors, side().labels, torch.arange(12), torch.zeros(12), columns=columns(weights)
        )
        sum(given({"main": batch}, nn.Identity(), moment()).values()).backward()
        silent = not vectors.grad[0].any()
        assert silent == (loss != "contrastive")  # there it still is a candidate of others


def test_proxies_as_anchors_take_the_weights_of_their_candidates() -> None:
    term = PairTerm(parse("losses", "proxy-anchor"), classes=CLASSES, dim=DIM)
    anchors, candidates = term.sides(side(weights=torch.arange(12.0)))
    pairs = build_pairs(anchors, candidates)
    assert torch.equal(pairs.pos + pairs.neg, torch.arange(12.0).expand(CLASSES, 12))


def test_a_loss_of_vectors_refuses_weights() -> None:
    with pytest.raises(UsageError, match="cannot weight images"):
        values("n-pair", ONES)
    assert float(values("nca:weight=2", None)) == pytest.approx(2 * values("nca", None))
    assert make_distinct(["a", "b", "a"]) == ["a", "b", "a-3"]
