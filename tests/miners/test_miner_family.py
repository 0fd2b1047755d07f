"""Properties that every miner has to have; a new file is tested from the moment it exists."""

from collections.abc import Callable

import pytest
import torch
from miner_cases import DIM, example, square_of

from mltool import components
from mltool.losses import Pairs
from mltool.losses.multi_similarity import multi_similarity

NAMES = components.names("miners")
AT_RANDOM = {name for name in NAMES if "generator" in components.describe("miners", name).context}


def load(name: str, settings: str = "") -> Callable[[Pairs], Pairs]:
    """A miner with its settings; at random, it draws the same in every call."""

    def mine(pairs: Pairs) -> Pairs:
        generator = torch.Generator().manual_seed(0)
        bound = components.load("miners", f"{name}:{settings}", dim=DIM, generator=generator)
        return bound(pairs)

    return mine


@pytest.mark.parametrize("name", NAMES)
def test_file_says_what_it_is(name: str) -> None:
    component = components.describe("miners", name)
    assert component.summary
    assert component.formula
    assert component.paper


@pytest.mark.parametrize("name", NAMES)
def test_only_takes_pairs_away(name: str) -> None:
    pairs = square_of(*example())
    mined = load(name)(pairs)
    assert mined.sim is pairs.sim
    for before, after in zip(pairs[1:], mined[1:], strict=True):
        assert after.shape == before.shape
        assert after.dtype == before.dtype
        assert (after[before == 0] == 0).all()
    assert 0 < (mined.neg > 0).sum() < (pairs.neg > 0).sum()
    assert (mined.pos > 0).any()


@pytest.mark.parametrize("name", NAMES)
def test_weights_are_kept(name: str) -> None:
    pairs = square_of(*example())
    heavy = pairs._replace(pos=0.3 * pairs.pos, neg=0.7 * pairs.neg)
    mined, plain = load(name)(heavy), load(name)(pairs)
    torch.testing.assert_close(mined.pos, 0.3 * plain.pos)
    torch.testing.assert_close(mined.neg, 0.7 * plain.neg)


@pytest.mark.parametrize("name", NAMES)
def test_no_gradient_but_through_the_similarities(name: str) -> None:
    pairs = square_of(*example())
    pairs = pairs._replace(sim=pairs.sim.requires_grad_())
    mined = load(name)(pairs)
    assert not mined.pos.requires_grad
    assert not mined.neg.requires_grad


@pytest.mark.parametrize("name", sorted(set(NAMES) - AT_RANDOM))
def test_order_does_not_matter(name: str) -> None:
    pairs = square_of(*example())
    order = torch.randperm(len(pairs.sim), generator=torch.Generator().manual_seed(1))
    mined = load(name)(pairs)
    shuffled = load(name)(Pairs(*(matrix[order][:, order] for matrix in pairs)))
    assert torch.equal(shuffled.pos, mined.pos[order][:, order])
    assert torch.equal(shuffled.neg, mined.neg[order][:, order])


@pytest.mark.parametrize("classes", [1, 20])  # no negatives; no positives
@pytest.mark.parametrize("name", NAMES)
def test_an_empty_side_gives_a_finite_loss_with_a_working_backward(name: str, classes: int) -> None:
    pairs = square_of(*example(classes=classes))
    pairs = pairs._replace(sim=pairs.sim.requires_grad_())
    mined = load(name)(pairs)
    assert mined.pos.isfinite().all()
    assert mined.neg.isfinite().all()
    loss = multi_similarity(mined)
    loss.backward()
    assert pairs.sim.grad is not None
    assert loss.isfinite()
    assert pairs.sim.grad.isfinite().all()


@pytest.mark.parametrize("name", NAMES)
def test_nothing_stays_nothing(name: str) -> None:
    pairs = square_of(*example())
    nothing = torch.zeros_like(pairs.pos)
    mined = load(name)(pairs._replace(sim=pairs.sim.requires_grad_(), pos=nothing, neg=nothing))
    assert not mined.pos.any()
    assert not mined.neg.any()
    loss = multi_similarity(mined)
    loss.backward()
    assert loss == 0


@pytest.mark.parametrize("name", NAMES)
def test_collapsed_vectors(name: str) -> None:
    vectors, labels = example()
    pairs = square_of(torch.ones_like(vectors) / DIM**0.5, labels)
    mined = load(name)(pairs)
    assert mined.pos.isfinite().all()
    assert mined.neg.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", NAMES)
def test_low_precision(name: str, dtype: torch.dtype) -> None:
    mined = load(name)(Pairs(*(matrix.to(dtype) for matrix in square_of(*example()))))
    assert mined.pos.isfinite().all()
    assert mined.neg.isfinite().all()


@pytest.mark.parametrize("name", sorted(AT_RANDOM))
def test_draws_follow_the_generator(name: str) -> None:
    pairs = square_of(*example(rows=60))
    mine = components.load("miners", name, dim=DIM, generator=torch.Generator().manual_seed(7))
    first, second = mine(pairs), mine(pairs)
    assert not torch.equal(first.neg, second.neg)
    again = components.load("miners", name, dim=DIM, generator=torch.Generator().manual_seed(7))
    assert torch.equal(again(pairs).neg, first.neg)
