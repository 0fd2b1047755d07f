"""What is mixed with what, and how similar the mix is: against loops over plain numbers."""

import itertools
from collections import Counter

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Generator, Tensor
from torch.nn import functional

from mltool import components
from mltool.engine.objectives.mixing import ITSELF, Mixture, compare_embeddings, draw_mixture
from mltool.engine.objectives.step_outputs import BatchSide, Comparison
from mltool.losses import Pairs, pairs_from_labels
from mltool.mixups import Mixup

LABELS = torch.tensor([0, 0, 0, 1, 1, 2, 0, 1])  # class 2 has one member, which has no positive


def mixup(settings: str = "") -> Mixup:
    return components.load("mixups", f"embedding:{settings}")()


def units(rows: int = 8, dim: int = 5, *, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return functional.normalize(
        torch.randn(rows, dim, generator=generator, dtype=torch.float64), dim=1
    )


def square(vectors: Tensor | None = None) -> Pairs:
    vectors = units() if vectors is None else vectors
    return pairs_from_labels(
        vectors @ vectors.T, LABELS, LABELS, exclude=torch.eye(8, dtype=torch.bool)
    )


def drawn(
    settings: str = "",
    *,
    pairs: Pairs | None = None,
    seed: int = 0,
    weights: Tensor | None = None,
    self_columns: Tensor | None = None,
) -> Mixture:
    anchors, candidates = BatchSide(units(), LABELS, weights), BatchSide(units(), LABELS)
    clean = square() if pairs is None else pairs
    comparison = Comparison(anchors, candidates, clean, self_columns)
    generator = Generator().manual_seed(seed)
    return draw_mixture(comparison, mixup(settings), generator=generator)


def triples(mixture: Mixture) -> list[list[tuple[int, int]]]:
    """(first, second) of each anchor, without padding."""
    there = (mixture.pos + mixture.neg > 0).tolist()
    columns = zip(mixture.first.tolist(), mixture.second.tolist(), there, strict=True)
    return [
        [pair for pair, used in zip(zip(x, y, strict=True), t, strict=True) if used]
        for x, y, t in columns
    ]


def sets(anchor: int) -> tuple[set[int], set[int]]:
    same = {j for j in range(8) if LABELS[j] == LABELS[anchor]}
    return same - {anchor}, set(range(8)) - same


def every(kind: str, anchor: int) -> set[tuple[int, int]]:
    """All that can be mixed for an anchor."""
    positives, negatives = sets(anchor)
    if kind == "anchor-neg":
        return {(ITSELF, n) for n in negatives}
    first = {"pos": positives, "neg": negatives}[kind[:3]]
    second = {"pos": positives, "neg": negatives}[kind[4:]]
    if first is second:
        return set(itertools.combinations(sorted(first), 2))
    return set(itertools.product(first, second))


def drawn_sets(kind: str, found: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Two of the same side mix alike in either order."""
    return [(min(p), max(p)) for p in found] if kind[:3] == kind[4:] else found


KINDS = ["pos-neg", "pos-pos", "neg-neg", "anchor-neg"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("negatives", ["hardest", "random"])
def test_without_a_bound_every_combination_comes_once(kind: str, negatives: str) -> None:
    mixture = drawn(f"pairs={kind},per_anchor=none,negatives={negatives}")
    for anchor, mixed in enumerate(triples(mixture)):
        found = drawn_sets(kind, mixed)
        assert len(found) == len(set(found))
        assert set(found) == every(kind, anchor)
    assert len(triples(mixture)[5]) == {"neg-neg": 21, "anchor-neg": 7}.get(kind, 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("most", [1, 2, 3, 5])
def test_an_anchor_has_at_most_so_many(kind: str, most: int) -> None:
    for anchor, found in enumerate(triples(drawn(f"pairs={kind},per_anchor={most}"))):
        assert len(found) == min(most, len(every(kind, anchor)))
        assert set(drawn_sets(kind, found)) <= every(kind, anchor)


def test_the_hardest_negatives_are_the_anchors_own() -> None:
    """The released code looks them up in the list of another anchor."""
    pairs = square()
    for kind in ("pos-neg", "anchor-neg"):
        for anchor, found in enumerate(triples(drawn(f"pairs={kind},per_anchor=3"))):
            negatives = sorted(sets(anchor)[1], key=lambda n: -float(pairs.sim[anchor, n]))
            assert [n for _, n in found] == (negatives[:3] if every(kind, anchor) else [])
    for anchor, found in enumerate(triples(drawn("pairs=neg-neg,per_anchor=1"))):
        negatives = sorted(sets(anchor)[1], key=lambda n: -float(pairs.sim[anchor, n]))
        assert found == [(negatives[1], negatives[0])]


def test_every_positive_and_random_negative_has_the_same_chance() -> None:
    """The released code takes an anchor's first positive for each of them."""
    positives, negatives = Counter(), Counter()
    for seed in range(900):
        ((first, second),) = triples(drawn("per_anchor=1,negatives=random", seed=seed))[0]
        positives[first] += 1
        negatives[second] += 1
    assert set(positives) == {1, 2, 6}
    assert set(negatives) == {3, 4, 5, 7}
    assert stats.chisquare(list(positives.values())).pvalue > 1e-3
    assert stats.chisquare(list(negatives.values())).pvalue > 1e-3


def test_several_examples_of_an_anchor_have_different_positives() -> None:
    for seed in range(10):
        found = triples(drawn("per_anchor=3", seed=seed))[0]
        assert {first for first, _ in found} == {1, 2, 6}


def test_lambda() -> None:
    steps = [drawn("draw=step,alpha=2", seed=seed).lam for seed in range(400)]
    assert all(bool((share == share[0, 0]).all()) for share in steps)
    one_a_step = np.array([float(share[0, 0]) for share in steps])
    assert stats.kstest(one_a_step, stats.beta(2, 2).cdf).pvalue > 1e-3
    pairs = torch.cat([drawn("alpha=0.5", seed=seed).lam.flatten() for seed in range(50)])
    assert len(pairs.unique()) == len(pairs)
    assert stats.kstest(pairs.numpy(), stats.beta(0.5, 0.5).cdf).pvalue > 1e-3


def test_several_kinds_take_turns_at_random() -> None:
    kinds = Counter()
    for seed in range(200):
        found = triples(drawn("pairs=pos-neg+anchor-neg,per_anchor=2", seed=seed))
        kinds[all(first == ITSELF for first, _ in found[0])] += 1
    assert stats.binomtest(kinds[True], 200).pvalue > 1e-3


def test_the_same_seed_draws_the_same() -> None:
    settings = "pairs=pos-neg+neg-neg,negatives=random"
    for one, other in zip(drawn(settings), drawn(settings), strict=True):
        assert torch.equal(one, other)
    assert not torch.equal(drawn(settings).lam, drawn(settings, seed=1).lam)


@pytest.mark.parametrize("kind", KINDS)
def test_weights_are_mixed_like_the_labels(kind: str) -> None:
    mixture = drawn(f"pairs={kind}")
    there = mixture.pos + mixture.neg > 0
    share = {"pos-pos": torch.ones(()), "neg-neg": torch.zeros(())}.get(kind, mixture.lam)
    torch.testing.assert_close(mixture.pos, share * there, check_dtype=False)
    torch.testing.assert_close(mixture.neg, (1 - share) * there, check_dtype=False)


def test_weights_of_pairs_and_of_the_anchor_itself_count() -> None:
    generator = torch.Generator().manual_seed(1)
    scale = torch.rand(8, 8, generator=generator, dtype=torch.float64) + 0.1
    plain = square()
    pairs = plain._replace(pos=plain.pos * scale, neg=plain.neg * scale.T)
    weights = torch.arange(1.0, 9.0, dtype=torch.float64)
    for kind in ("pos-neg", "anchor-neg"):
        mixture = drawn(f"pairs={kind},per_anchor=4", pairs=pairs, weights=weights)
        for a, k in (mixture.pos + mixture.neg > 0).nonzero().tolist():
            x, y, share = (int(mixture.first[a, k]), int(mixture.second[a, k]), mixture.lam[a, k])
            of_first = weights[a] if x == ITSELF else pairs.pos[a, x]
            assert mixture.pos[a, k] == share * of_first
            assert mixture.neg[a, k] == (1 - share) * pairs.neg[a, y]


def test_what_was_not_mined_is_not_mixed() -> None:
    pairs = square()
    kept = torch.zeros(8, 8, dtype=torch.float64)
    kept[0, 1] = kept[0, 5] = kept[3, 4] = 1
    mined = pairs._replace(pos=pairs.pos * kept, neg=pairs.neg * kept)
    found = triples(drawn("per_anchor=none", pairs=mined))
    assert found == [[(1, 5)], *[[]] * 7]


def test_no_pairs_at_all() -> None:
    pairs = square()
    none = pairs._replace(pos=torch.zeros_like(pairs.pos))
    mixture = drawn(pairs=none)
    assert mixture.first.shape == (8, 1)
    assert not (mixture.pos + mixture.neg).any()
    assert compare_embeddings(mixture, none.sim, units()).sim.isfinite().all()


def by_hand(mixture: Mixture, anchors: Tensor, candidates: Tensor) -> Tensor:
    """Similarities to mixed vectors that are really made."""
    sim = torch.zeros(mixture.first.shape, dtype=torch.float64)
    for a, k in np.ndindex(*sim.shape):
        x, share = int(mixture.first[a, k]), mixture.lam[a, k]
        one = anchors[a] if x == ITSELF else candidates[x]
        mixed = share * one + (1 - share) * candidates[mixture.second[a, k]]
        sim[a, k] = anchors[a] @ functional.normalize(mixed, dim=0)
    return sim


@pytest.mark.parametrize("kind", KINDS)
def test_similarities_are_those_of_mixed_vectors(kind: str) -> None:
    vectors = units().requires_grad_()
    ours, theirs = [], []
    for candidates in (vectors, units(8, seed=3).requires_grad_()):
        pairs = pairs_from_labels(vectors @ candidates.T, LABELS, LABELS)
        mixture = drawn(f"pairs={kind}", pairs=pairs)
        mixed = compare_embeddings(mixture, pairs.sim, candidates)
        wanted = by_hand(mixture, vectors, candidates)
        torch.testing.assert_close(mixed.sim, wanted)
        assert torch.equal(mixed.pos, mixture.pos)
        tip = torch.randn(mixed.sim.shape, dtype=torch.float64)
        both = [
            torch.autograd.grad((sim * tip).sum(), vectors, retain_graph=True)[0]
            for sim in (mixed.sim, wanted)
        ]
        # along a unit vector itself a model's last layer, the normalisation, lets nothing through
        radial = [g - (g * vectors).sum(1, keepdim=True) * vectors for g in both]
        ours.append(radial[0])
        theirs.append(radial[1])
    torch.testing.assert_close(ours, theirs)


def test_gradients() -> None:
    raw = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    mixture = drawn("per_anchor=3", pairs=square(functional.normalize(raw)))

    def value(rows: Tensor) -> Tensor:
        vectors = functional.normalize(rows)
        return compare_embeddings(mixture, vectors @ vectors.T, vectors).sim

    assert torch.autograd.gradcheck(value, raw.requires_grad_())


def test_a_mix_is_as_long_as_one() -> None:
    """|v| < 1 before: without renormalising every mix would look further away."""
    vectors, mixture = units(), drawn("per_anchor=none")
    found = compare_embeddings(mixture, square().sim, vectors)
    shortened = torch.zeros_like(found.sim)
    for a, k in np.ndindex(*shortened.shape):
        share = mixture.lam[a, k]
        mix = share * vectors[mixture.first[a, k]] + (1 - share) * vectors[mixture.second[a, k]]
        assert mix.norm() <= 1 + 1e-12
        shortened[a, k] = vectors[a] @ mix
    assert bool((found.sim.abs() >= shortened.abs() - 1e-12).all())
    assert bool((found.sim.abs() > shortened.abs() + 1e-3).any())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opposites_mixed_half_and_half_stay_finite(dtype: torch.dtype) -> None:
    point = units(1)[0].to(dtype)
    vectors = torch.stack([point, -point, point]).requires_grad_()
    half = torch.full((3, 1), 0.5, dtype=dtype)
    mixture = Mixture(torch.zeros(3, 1).long(), torch.ones(3, 1).long(), half, half, half)
    sim = compare_embeddings(mixture, vectors @ vectors.T, vectors).sim
    sim.sum().backward()
    assert sim.isfinite().all()
    assert sim.abs().max() < 1e-3
    assert vectors.grad.isfinite().all()


def test_an_anchor_is_mixed_as_its_own_vector_of_the_teacher() -> None:
    """A column of the candidates stands for the anchor, which is a positive of the weight one."""
    teacher = units(seed=3)
    pairs = pairs_from_labels(
        units() @ teacher.T, LABELS, LABELS, exclude=torch.eye(8, dtype=torch.bool)
    )
    columns = torch.arange(8)
    mixture = drawn("pairs=anchor-neg,per_anchor=none", pairs=pairs, self_columns=columns)
    there = mixture.pos + mixture.neg > 0
    assert (mixture.first == columns[:, None])[there].all()
    assert torch.equal(there.sum(1), (pairs.neg > 0).sum(1))
    torch.testing.assert_close(mixture.pos, mixture.lam * there, check_dtype=False)
    mixed = compare_embeddings(mixture, pairs.sim, teacher).sim
    torch.testing.assert_close(mixed[there], by_hand(mixture, units(), teacher)[there])
