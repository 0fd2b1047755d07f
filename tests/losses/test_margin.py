import pytest
import torch
from loss_cases import (
    DEGREES,
    LABELS,
    apart,
    assert_same,
    cosines,
    negatives,
    positives,
    random_batch,
    square,
    square_of,
)
from pytorch_metric_learning import losses

from mltool.losses.margin import Margin

SIM = cosines(DEGREES, DEGREES)
BETAS = (1.2, 0.9, 0.4, 1.1)


@pytest.mark.parametrize("betas", [(1.2, 1.2, 1.2, 1.2), BETAS])
def test_is_the_equation(betas: tuple[float, ...]) -> None:
    terms = []
    for a in range(len(DEGREES)):
        beta = betas[LABELS[a]]
        terms += [apart(SIM[a][p]) - beta + 0.2 for p in positives(a)]
        terms += [beta - apart(SIM[a][n]) + 0.2 for n in negatives(a)]
    active = [term for term in terms if term > 0]
    loss = Margin(classes=4, learn="class").double()
    loss.beta.data = torch.tensor(betas, dtype=torch.float64)
    ours = loss(square(), torch.tensor(LABELS))
    assert ours.item() == pytest.approx(sum(active) / len(active))


def test_is_pml_where_every_pair_is_in_one_triplet() -> None:
    vectors, _ = random_batch(rows=3)
    labels = torch.tensor([0, 0, 1])
    vectors.requires_grad_()
    pairs = square_of(vectors, labels)
    pairs.neg[2] = 0  # without a positive, so in no triplet
    theirs = losses.MarginLoss()(vectors, labels)
    assert_same(Margin(classes=2)(pairs, labels), theirs, vectors)


def test_equals_pml_on_triplets_when_pairs_weigh_what_they_count_there() -> None:
    vectors, labels = random_batch()
    pairs = square_of(vectors, labels)
    heavy = pairs._replace(
        pos=pairs.pos * pairs.neg.sum(dim=1, keepdim=True),
        neg=pairs.neg * pairs.pos.sum(dim=1, keepdim=True),
    )
    loss = Margin(classes=6)
    apart_ = (2 - 2 * pairs.sim).clamp(min=0).sqrt()
    active = (heavy.pos * (apart_ > 1.0)).sum() + (heavy.neg * (apart_ < 1.4)).sum()
    counted = ((pairs.pos > 0) & (apart_ > 1.0)).sum() + ((pairs.neg > 0) & (apart_ < 1.4)).sum()
    theirs = losses.MarginLoss()(vectors, labels)
    torch.testing.assert_close(loss(heavy, labels) * counted / active, theirs)


@pytest.mark.parametrize(("learn", "count"), [("none", 0), ("scalar", 1), ("class", 4)])
def test_learns_what_it_is_asked_to(learn: str, count: int) -> None:
    loss = Margin(classes=4, learn=learn, nu=0.1)
    assert sum(p.numel() for p in loss.parameters() if p.requires_grad) == count
    value = loss(square(), torch.tensor(LABELS))
    assert value.item() == pytest.approx(
        Margin(classes=4)(square(), torch.tensor(LABELS)).item() + 0.12
    )
    if count:
        value.backward()
        assert loss.beta.grad is not None
        assert (loss.beta.grad != 0).all()


def test_only_the_classes_of_the_anchors_move_their_boundary() -> None:
    loss = Margin(classes=6, learn="class")
    loss(square(), torch.tensor(LABELS)).backward()
    assert loss.beta.grad is not None
    assert (loss.beta.grad[4:] == 0).all()
