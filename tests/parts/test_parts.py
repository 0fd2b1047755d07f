"""Parts of a vector: slices are columns, fixed masks are slices, masks repel each other."""

import pytest
import torch
from torch.nn import functional

from mltool import components
from mltool.errors import UsageError
from mltool.losses import pairs_from_labels
from mltool.parts import join_blocks, save_as_one, split_blocks

VECTORS = torch.randn(6, 8, generator=torch.Generator().manual_seed(0))


def load(text: str, dim: int = 8) -> torch.nn.Module:
    return components.load("parts", text, dim=dim)


def set_masks(masks: torch.nn.Module, values: list[list[float]]) -> None:
    for mask, value in zip(masks.weight, values, strict=True):
        mask.data = torch.tensor([value])
    masks.use(len(values))


@pytest.mark.parametrize("name", components.names("parts"))
def test_contract_of_the_family(name: str) -> None:
    parts = load(f"{name}:count=4")
    assert parts.count == 4
    for part in range(4):
        assert parts(VECTORS, part).shape == (6, parts.part_dim)
    assert parts.whole(VECTORS).shape == (6, 8)
    parts.use(3)
    assert parts.in_use == 3
    other = load(f"{name}:count=4")
    other.load_state_dict(parts.state_dict())
    assert other.in_use == 3
    assert all(torch.equal(parts(VECTORS, k), other(VECTORS, k)) for k in range(4))
    assert not parts.bounds or [list(range(*b)) for b in parts.bounds][1] == [2, 3]


def test_slices_are_columns_in_order() -> None:
    slices = load("slices:count=4")
    assert torch.equal(torch.cat([slices(VECTORS, k) for k in range(4)], dim=1), VECTORS)
    assert torch.equal(torch.cat([VECTORS[:, a:b] for a, b in slices.bounds], dim=1), VECTORS)
    assert slices.whole(VECTORS) is VECTORS


def test_the_released_reading_keeps_every_slice_at_unit_length() -> None:
    vectors = load("slices:count=4,whole=each").whole(VECTORS)
    torch.testing.assert_close(vectors.reshape(6, 4, 2).norm(dim=2), torch.ones(6, 4))
    torch.testing.assert_close(functional.normalize(vectors), vectors / 2)  # the root of K


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("slices:count=3", "8 dimensions do not divide into 3 slices"),
        ("slices", "name the number"),
        ("masks", "name the number"),
        ("masks:count=1000000000", "1,024 at most"),
    ],
)
def test_refusals(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        load(text)


def test_fixed_masks_are_the_slices() -> None:
    slices, masks = load("slices:count=4"), load("masks:count=4,learn=false")
    masks.use(4)
    labels = torch.tensor([0, 0, 1, 1, 2, 2])
    margin = components.load("losses", "margin", classes=3, dim=2)
    for k in range(4):
        masked = masks(VECTORS, k)
        inside = masked != 0
        assert inside.sum() == 12
        assert torch.equal(masked[inside].reshape(6, 2), slices(VECTORS, k))
        losses = []
        for part in (masked, slices(VECTORS, k)):
            units = functional.normalize(part)
            itself = torch.eye(6, dtype=torch.bool)
            losses.append(
                margin(pairs_from_labels(units @ units.T, labels, labels, exclude=itself), labels)
            )
        torch.testing.assert_close(*losses)
    assert not list(masks.parameters())


@pytest.mark.parametrize("dim", [8, 10])
def test_doubling_halves_fixed_masks(dim: int) -> None:
    masks = load("masks:count=4,learn=false", dim)
    before = torch.ones(1, dim)
    for learners in (1, 2, 4):
        masks.use(learners)
        now = masks.weight[:learners].clone()
        assert torch.equal(now.sum(dim=0), torch.ones(dim))  # every dimension has one learner
        assert torch.equal(now.reshape(len(before), -1, dim).sum(dim=1), before)
        before = now


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([[1, 1, 0, 0], [0, 0, 1, 1]], 0.0),
        ([[1, 1, 0, 0], [1, 0, 0, 0]], 0.5**0.5),
        ([[1, 1, 1, 1], [1, 1, 1, 1]], 1.0),
        ([[1, 1, -5, -7], [-9, 0, 0, 2]], 0.0),  # rectified first
        ([[1, 2, 3, 4]], 0.0),  # no pair
        ([[0, 0, 0, 0], [1, 1, 0, 0]], 0.0),
    ],
)
def test_similarity_of_masks(values: list[list[float]], expected: float) -> None:
    masks = load(f"masks:count={len(values)}", 4)
    set_masks(masks, [[float(v) for v in row] for row in values])
    assert masks.similarity().item() == pytest.approx(expected, abs=1e-6)


def test_similarity_against_a_loop_over_ordered_pairs() -> None:
    masks = load("masks:count=5")
    values = torch.randn(5, 8, generator=torch.Generator().manual_seed(1)).tolist()
    set_masks(masks, values)
    masks.use(4)  # the fifth has no cluster
    rows = torch.tensor(values).relu()
    cosines = [
        functional.cosine_similarity(rows[i], rows[j], dim=0).item()
        for i in range(4)
        for j in range(4)
        if i != j
    ]
    assert masks.similarity().item() == pytest.approx(sum(cosines) / len(cosines), rel=1e-5)


def test_equal_masks_do_not_part_by_orthogonality_alone() -> None:
    masks = load("masks:count=2").double()
    masks.use(2)
    masks.similarity().backward()
    assert max(mask.grad.abs().max() for mask in masks.weight) < 1e-12
    set_masks(masks.double(), [[1.0] * 8, [1.0] * 4 + [0.5] * 4])
    (gradients := torch.autograd.grad(masks.similarity(), list(masks.weight)))
    assert min(gradient.abs().max() for gradient in gradients) > 1e-3


def test_a_dead_mask_gives_zeros() -> None:
    masks = load("masks:count=2")
    set_masks(masks, [[-1.0] * 8, [1.0] * 8])
    assert torch.equal(functional.normalize(masks(VECTORS, 0)), torch.zeros(6, 8))


def test_blocks_are_saved_as_one_tensor() -> None:
    class Two(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = split_blocks(torch.arange(12.0).reshape(6, 2), 3)
            save_as_one(self, "weight")

    outer = torch.nn.Sequential(Two())
    state = outer.state_dict()
    assert list(state) == ["0.weight"]
    assert torch.equal(state["0.weight"], torch.arange(12.0).reshape(6, 2))
    other = torch.nn.Sequential(Two())
    given = {"0.weight": torch.ones(6, 2)}
    other.load_state_dict(given)
    assert list(given) == ["0.weight"]
    assert torch.equal(join_blocks(other[0].weight), torch.ones(6, 2))
    with pytest.raises(RuntimeError, match="Missing"):
        other.load_state_dict({})
