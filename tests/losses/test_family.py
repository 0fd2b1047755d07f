"""Properties that every loss has to have; a new file is tested from the moment it exists."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltool import components
from mltool.components import Declared
from mltool.losses import Pairs, pairs_from_labels

NAMES = components.names("losses")
CLASSES, DIM, ROWS = 4, 6, 12
EXTREMES = {"temperature": 0.01, "alpha": 75.0, "beta": 75.0, "scale": 256.0}

# an average over pairs: a candidate of weight two is not two candidates
AVERAGES = {
    "binomial-deviance",
    "info-nce",
    "lifted-structure",  # nor can a column be doubled alone
    "margin",
    "nt-xent",
    "soft-triple",  # columns belong to classes in groups
    "supcon",
    "triplet",
}
# gradients that are not those of the value, by design
STRAIGHT_THROUGH = {"circle"}
# single pairs may go the other way: a soft histogram has slopes of both signs, and the positives of
# one anchor compete with each other
MONOTONE_IN_SUM = {"fastap", "supcon"}


def declared(name: str) -> Declared:
    return components.describe("losses", name).declared


def takes(name: str, what: str) -> bool:
    return (declared(name).input or "pairs") == what


def is_square(name: str) -> bool:
    return declared(name).square


ON_PAIRS = [name for name in NAMES if takes(name, "pairs")]
ON_VECTORS = [name for name in NAMES if takes(name, "vectors")]


def load(name: str, settings: str = "") -> Callable[..., Tensor]:
    loss = components.load("losses", f"{name}:{settings}", classes=CLASSES, dim=DIM)
    if isinstance(loss, nn.Module):
        loss.double()
    if "labels" not in declared(name).needs:
        return loss
    return lambda pairs: loss(pairs, torch.arange(len(pairs.sim)) % CLASSES)


def extreme(name: str) -> str:
    known = {setting.name for setting in components.describe("losses", name).settings}
    return ",".join(f"{key}={value}" for key, value in EXTREMES.items() if key in known)


def per_class(name: str) -> int:
    setting = declared(name).proxies_per_class
    known = {s.name: s.default for s in components.describe("losses", name).settings}
    return known[setting] if setting else 1


def example(name: str, seed: int = 0, known: float = 1.0) -> Pairs:
    """Pairs with the sides that a loss declares; a class pair exists with probability `known`."""
    generator = torch.Generator().manual_seed(seed)
    many = per_class(name)
    labels = torch.arange(ROWS) % CLASSES
    batch = F.normalize(torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64), dim=1)
    proxies = torch.randn(CLASSES * many, DIM, generator=generator, dtype=torch.float64)
    sides = {
        "batch": (batch, labels),
        "proxies": (F.normalize(proxies, dim=1), torch.arange(CLASSES).repeat_interleave(many)),
    }
    (rows, row_labels), (columns, column_labels) = (
        sides[declared(name).anchors],
        sides[declared(name).candidates],
    )
    dropped = torch.rand(len(rows), len(columns) // many, generator=generator) > known
    dropped = dropped.repeat_interleave(many, dim=1)
    if rows is columns:
        dropped.fill_diagonal_(True)
    pairs = pairs_from_labels(rows @ columns.T, row_labels, column_labels, exclude=dropped)
    return pairs._replace(sim=pairs.sim.clone().requires_grad_())


def slope(loss: Callable[..., Tensor], pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Value of a loss and its gradient with respect to the similarities."""
    value = loss(pairs)
    (gradient,) = torch.autograd.grad(value, pairs.sim)
    return value.detach(), gradient


@pytest.mark.parametrize("name", NAMES)
def test_file_says_what_it_is(name: str) -> None:
    component = components.describe("losses", name)
    assert component.summary
    assert component.formula, "the docstring's second paragraph is the formula"
    assert component.paper[-5:-1].isdigit(), "the module docstring's first line ends in the year"
    if name in ON_PAIRS:
        assert {declared(name).anchors, declared(name).candidates} <= {"batch", "proxies"}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_finite_at_low_precision_and_extreme_settings(name: str, dtype: torch.dtype) -> None:
    pairs = example(name)
    sim = pairs.sim.detach().clone()
    sim[0], sim[1], sim[:, 2] = 1.0, -1.0, 1.0  # duplicates and opposites, of all classes
    pairs = Pairs(sim.to(dtype).requires_grad_(), pairs.pos.to(dtype), pairs.neg.to(dtype))
    for settings in ("", extreme(name)):
        value, gradient = slope(load(name, settings), pairs)
        assert value.isfinite()
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ON_PAIRS)
def test_positives_are_pulled_and_negatives_pushed(name: str) -> None:
    if per_class(name) > 1:
        setting = declared(name).proxies_per_class
        loss, pairs = load(name, f"{setting}=1"), example("normalized-softmax")
    else:
        loss, pairs = load(name), example(name)
    _, gradient = slope(loss, pairs)
    assert (gradient * pairs.pos).sum() < 0 < (gradient * pairs.neg).sum()
    if name not in MONOTONE_IN_SUM:
        assert (gradient[pairs.pos > 0] <= 0).all()
        assert (gradient[pairs.neg > 0] >= 0).all()


@pytest.mark.parametrize("name", ON_PAIRS)
def test_pairs_without_weight_do_not_count(name: str) -> None:
    pairs = example(name, known=0.6)
    absent = pairs.pos + pairs.neg == 0
    assert absent.any()
    value, gradient = slope(load(name), pairs)
    assert (gradient[absent] == 0).all()
    other = torch.where(absent, -0.9, pairs.sim.detach()).requires_grad_()
    again, gradient_again = slope(load(name), pairs._replace(sim=other))
    torch.testing.assert_close(again, value)
    torch.testing.assert_close(gradient_again, gradient)


@pytest.mark.parametrize("name", ON_PAIRS)
def test_order_does_not_matter(name: str) -> None:
    pairs = example(name, known=0.8)
    generator = torch.Generator().manual_seed(3)
    many = per_class(name)
    rows = torch.randperm(pairs.sim.shape[0], generator=generator)
    groups = torch.randperm(pairs.sim.shape[1] // many, generator=generator)
    columns = (groups[:, None] * many + torch.arange(many)).flatten()
    if is_square(name):
        columns = rows
    if declared(name).needs:
        rows = torch.arange(len(rows))  # labels stay with their rows in `load`
    loss = load(name)
    shuffled = Pairs(*(matrix.detach()[rows][:, columns] for matrix in pairs))
    torch.testing.assert_close(loss(shuffled), loss(pairs).detach(), rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("absent", ["pos", "neg", "both", "rows"])
@pytest.mark.parametrize("name", ON_PAIRS)
def test_missing_sides(name: str, absent: str) -> None:
    pairs = example(name)
    pos, neg = pairs.pos.clone(), pairs.neg.clone()
    if absent == "rows":
        pos[0], neg[1], pos[2], neg[2] = 0, 0, 0, 0
    else:
        pos *= absent == "neg"
        neg *= absent == "pos"
    value, gradient = slope(load(name), Pairs(pairs.sim, pos, neg))
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (gradient[(pos + neg) == 0] == 0).all()
    if absent == "both":
        assert value == 0
        assert (gradient == 0).all()


@pytest.mark.parametrize("name", ON_PAIRS)
def test_duplicates_at_distance_zero(name: str) -> None:
    pairs = example(name)
    value, gradient = slope(
        load(name), pairs._replace(sim=torch.ones_like(pairs.sim).requires_grad_())
    )
    assert value.isfinite()
    assert gradient.isfinite().all()


@pytest.mark.parametrize("name", ON_PAIRS)
def test_soft_labels(name: str) -> None:
    pairs = example(name)
    exists = pairs.pos + pairs.neg
    share = torch.rand(exists.shape, generator=torch.Generator().manual_seed(5))
    if per_class(name) > 1:
        share = share[:, :: per_class(name)].repeat_interleave(per_class(name), dim=1)
    mixed = Pairs(pairs.sim, exists * share, exists * (1 - share))
    value, gradient = slope(load(name), mixed)
    assert value.isfinite()
    assert gradient.isfinite().all()
    assert (gradient != 0).any()


@pytest.mark.parametrize("name", sorted(set(ON_PAIRS) - AVERAGES))
def test_weight_two_is_two_candidates(name: str) -> None:
    pairs = example(name)
    loss = load(name)
    for column in (0, 1, 2):
        heavy = Pairs(pairs.sim.detach(), pairs.pos.clone(), pairs.neg.clone())
        heavy.pos[:, column] *= 2
        heavy.neg[:, column] *= 2
        twice = [*range(pairs.sim.shape[1]), column]
        doubled = Pairs(*(matrix.detach()[:, twice] for matrix in pairs))
        torch.testing.assert_close(loss(heavy), loss(doubled), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in ON_PAIRS if not is_square(name)])
def test_rows_and_columns_may_differ_in_number(name: str) -> None:
    pairs = Pairs(*(matrix[:3] for matrix in example(name)))
    assert load(name)(pairs).isfinite()


@pytest.mark.parametrize("name", sorted(set(ON_PAIRS) - STRAIGHT_THROUGH))
def test_gradient_is_that_of_the_value(name: str) -> None:
    pairs = example(name, seed=2)
    loss = load(name)
    assert torch.autograd.gradcheck(lambda sim: loss(pairs._replace(sim=sim)), pairs.sim)


def vectors_example(seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    vectors = torch.randn(ROWS, DIM, generator=generator, dtype=torch.float64)
    return vectors.requires_grad_(), torch.arange(ROWS) % CLASSES


@pytest.mark.parametrize("name", ON_VECTORS)
def test_vector_losses_have_their_gradient(name: str) -> None:
    vectors, labels = vectors_example()
    loss = load(name)
    assert torch.autograd.gradcheck(lambda x: loss(x, labels), vectors)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("name", ON_VECTORS)
def test_vector_losses_are_finite_at_low_precision(name: str, dtype: torch.dtype) -> None:
    vectors, labels = vectors_example()
    low = (vectors.detach() * 60).to(dtype).requires_grad_()
    loss = components.load("losses", name, classes=CLASSES, dim=DIM)
    value = loss(low, labels)
    value.backward()
    assert low.grad is not None
    assert value.isfinite()
    assert low.grad.isfinite().all()


@pytest.mark.parametrize("labels", [[-1] * ROWS, list(range(ROWS)), [0] * ROWS, [0] + [-1] * 11])
@pytest.mark.parametrize("name", ON_VECTORS)
def test_vector_losses_without_pairs(name: str, labels: list[int]) -> None:
    vectors, _ = vectors_example()
    value = load(name)(vectors, torch.tensor(labels).clamp(max=CLASSES - 1))
    value.backward()
    assert vectors.grad is not None
    assert math.isfinite(value.item())
    assert vectors.grad.isfinite().all()


@pytest.mark.parametrize("name", ON_VECTORS)
def test_vector_losses_do_not_depend_on_the_order_of_classes(name: str) -> None:
    vectors, labels = vectors_example()
    order = torch.arange(ROWS).reshape(-1, CLASSES).flip(1).flatten()  # order within classes kept
    loss = load(name)
    torch.testing.assert_close(loss(vectors[order], labels[order]), loss(vectors, labels))
