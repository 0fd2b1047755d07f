"""The operations that the losses are written with."""

import math

import pytest
import torch

from mltool.losses import Pairs, distance, pairs_from_labels
from mltool.losses._pairs import log_odds, log_one_plus_sum_exp, log_sum_exp, row_mean, softmax_loss

SIM = torch.tensor([[0.5, -0.25, 1.0], [0.0, 0.75, -1.0]], dtype=torch.float64)


def test_labels_become_weights() -> None:
    pairs = pairs_from_labels(SIM, torch.tensor([4, 7]), torch.tensor([7, 4, 4]))
    assert pairs.pos.tolist() == [[0, 1, 1], [1, 0, 0]]
    assert pairs.neg.tolist() == [[1, 0, 0], [0, 1, 1]]


def test_unknown_labels_pair_with_nothing() -> None:
    pairs = pairs_from_labels(SIM, torch.tensor([-1, 7]), torch.tensor([-1, 7, 4]))
    assert pairs.pos.tolist() == [[0, 0, 0], [0, 1, 0]]
    assert pairs.neg.tolist() == [[0, 0, 0], [0, 0, 1]]


def test_excluded_pairs_do_not_exist() -> None:
    exclude = torch.tensor([[False, True, False], [True, False, False]])
    pairs = pairs_from_labels(SIM, torch.tensor([4, 7]), torch.tensor([7, 4, 4]), exclude=exclude)
    assert pairs.pos.tolist() == [[0, 0, 1], [0, 0, 0]]
    assert pairs.neg.tolist() == [[1, 0, 0], [0, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_widened(dtype: torch.dtype) -> None:
    pairs = pairs_from_labels(SIM.to(dtype), torch.tensor([4, 7]), torch.tensor([7, 4, 4]))
    assert {matrix.dtype for matrix in pairs} == {torch.float32}


def test_distance_is_euclidean() -> None:
    generator = torch.Generator().manual_seed(0)
    vectors = torch.randn(9, 5, generator=generator, dtype=torch.float64)
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    expected = torch.cdist(vectors, vectors, compute_mode="donot_use_mm_for_euclid_dist")
    torch.testing.assert_close(
        distance(vectors @ vectors.T), expected.clamp(min=1e-4), rtol=0, atol=1e-7
    )


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_distance_of_duplicates_has_a_finite_slope(dtype: torch.dtype) -> None:
    sim = torch.tensor([[1.0, 1.5, -1.0]], dtype=dtype, requires_grad=True)
    apart = distance(sim)
    apart.sum().backward()
    assert sim.grad is not None
    assert apart[0, 2] == 2
    assert apart[0, 0] < 0.01
    assert sim.grad.isfinite().all()


def test_log_sum_exp_weighs_and_skips() -> None:
    weight = torch.tensor([[1.0, 0.0, 2.5], [0.0, 0.0, 0.0]], dtype=torch.float64)
    x = (80 * SIM).clone().requires_grad_()
    total = log_sum_exp(x, weight)
    plus_one = log_one_plus_sum_exp(x, weight)
    assert total[0].item() == pytest.approx(math.log(math.exp(40) + 2.5 * math.exp(80)))
    assert plus_one[1] == 0
    plus_one.sum().backward()
    assert x.grad is not None
    assert x.grad[1].tolist() == [0, 0, 0]
    assert x.grad[0, 1] == 0
    assert x.grad[0].sum().item() == pytest.approx(1.0)


def test_row_mean_divides_by_the_number_of_pairs() -> None:
    weight = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]], dtype=torch.float64)
    assert row_mean(SIM, weight).tolist() == [0.0625, 0.0]


def test_softmax_loss_is_cross_entropy() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = 50 * torch.randn(7, 5, generator=generator, dtype=torch.float64)
    labels = torch.arange(7) % 5
    pairs = pairs_from_labels(logits, labels, torch.arange(5))
    expected = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    torch.testing.assert_close(softmax_loss(logits, pairs), expected)


def test_pairs_is_a_plain_tuple() -> None:
    sim, pos, neg = Pairs(SIM, SIM > 0, SIM < 0)
    assert sim is SIM
    assert not (pos & neg).any()


def test_log_odds_is_the_difference_of_two_sums() -> None:
    generator = torch.Generator().manual_seed(0)
    x = (20 * torch.randn(5, 7, generator=generator, dtype=torch.float64)).requires_grad_()
    pos = torch.rand(5, 7, generator=generator, dtype=torch.float64).round(decimals=1)
    neg = 1 - pos  # overlapping, as of mixed examples
    pos[3], neg[4] = 0, 0
    pairs = Pairs(x, pos, neg)
    expected = log_sum_exp(x, neg) - log_sum_exp(x, pos)
    torch.testing.assert_close(log_odds(x, pairs), expected)
    (wanted,) = torch.autograd.grad(expected[:3].sum(), x)
    (found,) = torch.autograd.grad(log_odds(x, pairs)[:3].sum(), x)
    torch.testing.assert_close(found, wanted)
    odd = torch.where((pos > 0).any(dim=1) & (neg > 0).any(dim=1), log_odds(x, pairs), 0)
    assert torch.autograd.grad(odd.sum(), x)[0].isfinite().all()
