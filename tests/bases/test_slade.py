"""SLADE's basis: closed forms, the traps of its statistics, and what it mines."""

import doctest
import importlib
import itertools

import numpy as np
import pytest
import torch
from pytorch_metric_learning import distances, losses, reducers
from torch import Tensor
from torch.nn import functional

from mltool import components
from mltool.bases.slade import Slade, describe_pairs
from mltool.losses import Pairs, pairs_from_labels

CLASSES, DIM, COUNT = 7, 5, 12


def make(*, begun: bool = False, steps: int = 10_000, **settings: object) -> Slade:
    """A basis in float64; with `begun` its statistics are mu 0.4 and 0.2, v 0.01 and 0.02."""
    torch.manual_seed(0)
    basis = Slade(classes=CLASSES, dim=DIM, steps=steps, **settings).double()
    if begun:
        basis.statistics = torch.tensor([[0.4, 0.01], [0.2, 0.02]], dtype=torch.float64)
        basis.batches = torch.tensor([1, 1])
    return basis


def separate(basis: Slade, vectors: Tensor, labels: Tensor) -> Tensor:
    """The loss of images that are all different."""
    return basis.separate(vectors, labels, torch.arange(len(labels)))


def describe(scores: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The statistics of images that are all different."""
    return describe_pairs(scores, labels, torch.arange(len(labels)))


def draw(seed: int = 0, count: int = COUNT, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Embeddings and their pseudo-labels; one image has none."""
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(count, DIM, generator=generator, dtype=torch.float64)
    labels = torch.randint(classes, (count,), generator=generator)
    labels[1] = -1
    return vectors, labels


def list_scores(basis: Slade, vectors: Tensor, labels: Tensor) -> tuple[list[float], list[float]]:
    """Scores of pairs of equal and of different labels, one by one."""
    responses = [basis.vectors.detach().numpy() @ vector.numpy() for vector in vectors.detach()]
    equal, different = [], []
    for i, j in itertools.combinations(range(len(labels)), 2):
        if labels[i] < 0 or labels[j] < 0:
            continue
        one, other = responses[i], responses[j]
        score = one @ other / (np.linalg.norm(one) * np.linalg.norm(other))
        (equal if labels[i] == labels[j] else different).append(score)
    return equal, different


def test_the_worked_example_holds() -> None:
    result = doctest.testmod(importlib.import_module("mltool.bases.slade"))
    assert result.attempted > 0
    assert result.failed == 0


def test_the_loss_is_its_closed_form() -> None:
    basis = make(momentum=1.0)
    basis.statistics = torch.tensor([[0.6, 0.02], [0.3, 0.03]], dtype=torch.float64)
    basis.batches = torch.tensor([3, 3])
    assert separate(basis, *draw()).item() == pytest.approx(0.25)
    half = make(momentum=1.0, distribution=0.5, variance=3.0)
    half.statistics, half.batches = basis.statistics, basis.batches
    assert separate(half, *draw()).item() == pytest.approx(0.5 * (0.2 + 3 * 0.05))


def test_a_running_value_moves_by_one_minus_momentum() -> None:
    basis = make(begun=True)
    batch = torch.full((2, 2), 0.6, dtype=torch.float64)
    basis._follow(batch, torch.tensor([True, True]))
    assert basis.statistics[0, 0].item() == pytest.approx(0.402)


def test_scores_are_cosines_of_responses() -> None:
    basis, (vectors, _) = make(), draw()
    responses = vectors @ basis.vectors.T
    plain = functional.cosine_similarity(responses[:, None], responses[None], dim=-1)
    torch.testing.assert_close(basis.score(vectors), plain)
    torch.testing.assert_close(basis.score(vectors), distances.CosineSimilarity()(responses))
    with torch.no_grad():
        basis.vectors.mul_(7)
    torch.testing.assert_close(basis.score(3 * vectors), plain)
    with torch.no_grad():
        basis.vectors[0] *= 7
    assert (basis.score(vectors) - plain).abs().max() > 0.1


def test_classes_are_told_apart_without_a_bias() -> None:
    basis, (vectors, _) = make(), draw()
    labels = torch.arange(COUNT) % CLASSES
    expected = functional.cross_entropy(vectors @ basis.vectors.T, labels)
    torch.testing.assert_close(basis.classify(vectors, labels).mean(), expected)


@pytest.mark.parametrize("seed", range(3))
def test_statistics_are_those_of_every_pair_once(seed: int) -> None:
    basis, (vectors, labels) = make(), draw(seed)
    statistics, exists = describe(basis.score(vectors), labels)
    assert exists.tolist() == [True, True]
    for row, scores in zip(statistics, list_scores(basis, vectors, labels), strict=True):
        assert row.tolist() == pytest.approx([np.mean(scores), np.var(scores)])


def test_an_image_that_a_batch_repeats_is_no_pair_with_itself() -> None:
    """Its score of 1 would lift the mean above the scores of different images."""
    basis, (vectors, labels) = make(), draw()
    rows = torch.arange(COUNT)
    vectors[5], labels[5], rows[5] = vectors[4], labels[4], 4
    vectors[7], labels[7], rows[7] = vectors[4], labels[4], 4
    scores = basis.score(vectors).detach()
    sides: tuple[list[float], list[float]] = ([], [])
    for i, j in itertools.combinations(range(COUNT), 2):
        if rows[i] != rows[j] and labels[i] >= 0 and labels[j] >= 0:
            sides[int(labels[i] != labels[j])].append(scores[i, j].item())
    statistics, _ = describe_pairs(scores, labels, rows)
    for row, side in zip(statistics, sides, strict=True):
        assert row.tolist() == pytest.approx([np.mean(side), np.var(side)])
    basis.separate(vectors, labels, rows)
    assert torch.equal(basis.statistics, statistics)
    assert describe_pairs(scores[:, [4, 5]][[4, 5]], labels[4:6], rows[4:6])[1].sum() == 0


@pytest.mark.parametrize("gradient", ["full", "damped"])
def test_the_first_batch_begins_each_side_by_itself(gradient: str) -> None:
    """Blended with a zero the thresholds would be wrong for hundreds of steps."""
    basis, (vectors, _) = make(gradient=gradient), draw(count=4)
    apart, paired = torch.arange(4), torch.tensor([0, 0, 0, 0])
    value = separate(basis, vectors, apart)
    _, different = list_scores(basis, vectors, apart)
    assert basis.batches.tolist() == [0, 1]
    assert basis.statistics[1].tolist() == pytest.approx([np.mean(different), np.var(different)])
    assert value.item() == pytest.approx(np.var(different))  # no hinge with one side missing
    before = basis.statistics[1].clone()
    separate(basis, vectors, paired)
    equal, _ = list_scores(basis, vectors, paired)
    assert basis.batches.tolist() == [1, 1]
    assert basis.statistics[0].tolist() == pytest.approx([np.mean(equal), np.var(equal)])
    assert torch.equal(basis.statistics[1], before)  # a batch without such a pair


def test_a_batch_without_any_pair_has_a_gradient_of_zero() -> None:
    basis, (vectors, _) = make(), draw(count=3)
    value = separate(basis, vectors, torch.full((3,), -1))
    (gradient,) = torch.autograd.grad(value, basis.vectors)
    assert value.item() == 0
    assert not gradient.any()
    assert basis.batches.tolist() == [0, 0]
    one_pair = separate(basis, vectors[:2], torch.tensor([4, 4]))
    assert one_pair.item() == pytest.approx(0, abs=1e-12)  # a variance of one score


def gradient_of(basis: Slade, vectors: Tensor, labels: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(separate(basis, vectors, labels), basis.vectors)
    return gradient


@pytest.mark.parametrize("momentum", [0.99, 0.9, 0.0])
def test_damped_has_one_minus_momentum_of_the_full_gradient(momentum: float) -> None:
    full, damped = (make(begun=True, momentum=momentum, gradient=g) for g in ("full", "damped"))
    gradients = [gradient_of(basis, *draw()) for basis in (full, damped)]
    torch.testing.assert_close(gradients[1], (1 - momentum) * gradients[0])
    torch.testing.assert_close(full.statistics, damped.statistics)
    assert gradients[0].norm() > 1e-2


def test_the_full_gradient_is_that_of_the_batch_also_in_the_first_one() -> None:
    (vectors, labels), plain = draw(), make()
    statistics, _ = describe(plain.score(vectors), labels)
    value = (statistics[1, 0] - statistics[0, 0] + 0.5).relu() + statistics[:, 1].sum()
    (expected,) = torch.autograd.grad(value, plain.vectors)
    torch.testing.assert_close(gradient_of(make(), vectors, labels), expected)
    torch.testing.assert_close(gradient_of(make(begun=True), vectors, labels), expected)
    assert torch.autograd.gradcheck(
        lambda vectors: separate(make(), vectors, labels), vectors.requires_grad_()
    )


def pairs_of(vectors: Tensor, labels: Tensor, weights: Tensor | None = None) -> Pairs:
    units = functional.normalize(vectors)
    itself = torch.eye(len(labels), dtype=torch.bool)
    pairs = pairs_from_labels(units @ units.T, labels, labels, exclude=itself)
    each = torch.ones(len(labels)) if weights is None else weights
    return Pairs(pairs.sim, pairs.pos * each[:, None], pairs.neg * each[:, None])


@pytest.mark.parametrize("mining", ["score", "agree", "none"])
def test_pairs_are_mined_by_their_scores(mining: str) -> None:
    basis, (vectors, labels) = make(begun=True, mining=mining), draw()
    weights = torch.linspace(0.5, 1.5, COUNT)
    pairs = pairs_of(vectors, labels, weights)
    mined = basis.select(pairs, functional.normalize(vectors))
    scores = basis.score(vectors).detach()
    assert torch.equal(mined.sim, pairs.sim)
    for i, j in itertools.product(range(COUNT), repeat=2):
        exists = i != j and labels[i] >= 0 and labels[j] >= 0
        same = labels[i] == labels[j]
        pos, neg = bool(scores[i, j] >= 0.4), bool(scores[i, j] <= 0.2)
        if mining == "agree":
            pos, neg = pos and bool(same), neg and not bool(same)
        elif mining == "none":
            pos, neg = bool(same), not bool(same)
        assert mined.pos[i, j] == exists * pos * weights[i]
        assert mined.neg[i, j] == exists * neg * weights[i]
    assert mined.pos.any()
    assert mined.neg.any()


@pytest.mark.parametrize("begun", [[1, 0], [0, 1], [1, 1]])
def test_nothing_is_mined_before_the_sides_are_apart(begun: list[int]) -> None:
    """Otherwise a pair is pulled and pushed at once."""
    basis, (vectors, labels) = make(begun=True), draw()
    basis.batches = torch.tensor(begun)
    if all(begun):
        basis.statistics = basis.statistics.flip(0)
    mined = basis.select(pairs_of(vectors, labels), vectors)
    assert not (mined.pos + mined.neg).any()
    if all(begun):
        assert "nothing is mined" in basis.summary()
        basis.mining = "none"
        assert "nothing" not in basis.summary()


@pytest.mark.parametrize("seed", range(3))
def test_the_mined_loss_is_that_of_the_same_tuples_elsewhere(seed: int) -> None:
    """Pytorch-metric-learning takes both directions of the pairs as tuples of indices."""
    basis, (vectors, labels) = make(begun=True), draw(seed)
    mined = basis.select(pairs_of(vectors, labels), vectors)
    tuples = (*mined.pos.nonzero().T, *mined.neg.nonzero().T)
    theirs = losses.ContrastiveLoss(pos_margin=0, neg_margin=1.2)
    ours = components.load("losses", "contrastive:form=distance,margin=1.2,average=active")
    torch.testing.assert_close(ours(mined), theirs(vectors, labels, tuples), rtol=1e-6, atol=0)
    theirs = losses.MultiSimilarityLoss(alpha=2, beta=50, base=0.5, reducer=reducers.MeanReducer())
    ours = components.load("losses", "multi-similarity:alpha=2,beta=50,base=0.5")
    torch.testing.assert_close(ours(mined), theirs(vectors, labels, tuples), rtol=1e-6, atol=0)


def test_low_precision_is_scored_in_the_precision_of_the_basis() -> None:
    vectors, labels = draw()
    basis = make().float()
    plain = basis.score(vectors.half().float())
    assert torch.equal(basis.score(vectors.half()), plain)
    assert separate(basis, vectors.bfloat16(), labels).dtype == torch.float32
    assert basis.classify(vectors.half(), torch.zeros(COUNT, dtype=torch.int64)).isfinite().all()


def test_a_warm_up_takes_a_tenth_of_the_run_at_most() -> None:
    assert [make(steps=steps).warmup for steps in (10_000, 1000, 60, 0)] == [100, 100, 6, 0]
    assert make(warmup=None).warmup == 0
    assert components.parse("bases", "slade:warmup=none")["warmup"] is None


def test_statistics_are_saved() -> None:
    basis, other = make(), make()
    for seed in range(3):
        separate(basis, *draw(seed))
    other.load_state_dict(basis.state_dict())
    assert separate(basis, *draw(5)).item() == separate(other, *draw(5)).item()
    assert torch.equal(basis.statistics, other.statistics)
