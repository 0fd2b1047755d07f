"""Properties that every transfer has to have; a new file is tested from the moment it exists."""

from typing import cast

import pytest
import torch
from torch import Tensor, nn
from transfer_cases import NAMES, load, needs, random_vectors

from mltool import components

ON_MAPS = [
    name for name in NAMES if "maps" in components.describe("transfers", name).declared.needs
]
ON_VECTORS = [name for name in NAMES if name not in ON_MAPS]
# equal to its teacher, a student has nothing to learn from these
ZERO_AT_TEACHER = ["attention", "pkt", "rkd"]
# each image has negatives of its own, drawn in the order of the batch
DRAWN = {"crd"}


def inputs(name: str, rows: int = 7, seed: int = 0) -> tuple[Tensor, Tensor, dict[str, object]]:
    return *random_vectors(rows, seed=seed), needs(name, rows, seed=seed)


def leaves(student: Tensor, further: dict[str, object]) -> list[Tensor]:
    """What the gradient of a student is taken by."""
    return [*cast(list[Tensor], further.get("student_maps", [])), student]


def slope(value: Tensor, student: Tensor, further: dict[str, object]) -> list[Tensor]:
    found = torch.autograd.grad(value, leaves(student, further), allow_unused=True)
    return [gradient for gradient in found if gradient is not None]


@pytest.mark.parametrize("name", NAMES)
def test_file_says_what_it_is(name: str) -> None:
    component = components.describe("transfers", name)
    assert component.summary
    assert component.formula, "the docstring's second paragraph is the formula"
    assert component.paper[-5:-1].isdigit(), "the module docstring's first line ends in the year"
    assert components.describe("transfers", name).declared.input in ("raw", "unit")
    assert not components.describe("transfers", name).declared.needs - {
        "maps",
        "penultimate",
        "index",
        "labels",
    }


@pytest.mark.parametrize("name", NAMES)
def test_a_student_learns_and_a_teacher_does_not(name: str) -> None:
    student, teacher, further = inputs(name)
    teacher.requires_grad_()
    theirs = [teacher, *cast(list[Tensor], further.get("teacher_maps", []))]
    for tensor in theirs:
        tensor.requires_grad_()
    value = load(name)(student, teacher, **further)
    assert value.shape == ()
    assert any((gradient != 0).any() for gradient in slope(value, student, further))
    value = load(name)(student, teacher, **further)
    assert all(g is None for g in torch.autograd.grad(value, theirs, allow_unused=True))


@pytest.mark.parametrize("name", NAMES)
def test_steps_downhill_lower_it(name: str) -> None:
    student, teacher, further = inputs(name)
    found = []
    for _ in range(2):
        value = load(name)(student, teacher, **further)  # the same draws, the same memory
        found.append(value.item())
        moved = leaves(student, further)
        gradients = torch.autograd.grad(value, moved, allow_unused=True)
        with torch.no_grad():
            for tensor, gradient in zip(moved, gradients, strict=True):
                if gradient is not None:
                    tensor -= 1e-3 * gradient / gradient.norm()
    assert found[1] < found[0]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("kind", ["large", "duplicates", "equal", "zero"])
@pytest.mark.parametrize("name", NAMES)
def test_finite_at_low_precision(name: str, kind: str, dtype: torch.dtype) -> None:
    def low(tensor: Tensor) -> Tensor:
        changed = tensor.detach() * 300  # its square is beyond float16
        if kind == "duplicates":
            changed[1], changed[3] = changed[0], changed[2]
        elif kind != "large":
            changed = torch.full_like(changed, 0.3 if kind == "equal" else 0.0)
        return changed.to(dtype).requires_grad_(tensor.requires_grad)

    student, teacher, further = inputs(name)
    student, teacher = low(student), low(teacher)
    for key in ("student_maps", "teacher_maps"):
        if key in further:
            further[key] = [low(maps) for maps in cast(list[Tensor], further[key])]
    loss = load(name)
    if isinstance(loss, nn.Module):
        loss.float()
    value = loss(student, teacher, **further)
    assert value.dtype == torch.float32
    assert value.isfinite()
    for gradient in slope(value, student, further):
        assert gradient.dtype == dtype
        assert gradient.isfinite().all()
        assert gradient.abs().max() < 1e4, "no explosion where vectors meet"


@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("name", NAMES)
def test_tiny_batches(name: str, rows: int) -> None:
    student, teacher, further = inputs(name, rows)
    value = load(name)(student, teacher, **further)
    assert value.isfinite()
    for gradient in slope(value, student, further):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("name", sorted(set(NAMES) - DRAWN))
def test_order_does_not_matter(name: str) -> None:
    student, teacher, further = inputs(name)
    order = torch.tensor([3, 0, 6, 2, 5, 1, 4])
    shuffled: dict[str, object] = {}
    for key, given in further.items():
        rows = [maps[order] for maps in given] if isinstance(given, list) else given
        shuffled[key] = rows[order] if isinstance(rows, Tensor) else rows
    value = load(name)(student, teacher, **further)
    again = load(name)(student[order], teacher[order], **shuffled)
    torch.testing.assert_close(again, value, rtol=1e-12, atol=1e-14)
    for first, second in zip(
        slope(value, student, further), slope(again, student, further), strict=True
    ):
        torch.testing.assert_close(second, first, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ON_VECTORS)
def test_gradient_is_that_of_the_value(name: str) -> None:
    student, teacher, further = inputs(name, seed=2)
    first = load(name)
    first(student, teacher, **further)  # what the first batch settles is a constant from then on

    def value(vectors: Tensor) -> Tensor:
        loss = load(name)
        if isinstance(loss, nn.Module) and isinstance(first, nn.Module):
            loss.load_state_dict(first.state_dict())
        return loss(vectors, teacher, **further)

    assert torch.autograd.gradcheck(value, student)


@pytest.mark.parametrize("name", ON_MAPS)
def test_gradient_of_maps_is_that_of_the_value(name: str) -> None:
    student, teacher, further = inputs(name, rows=2)
    theirs = further["teacher_maps"]

    def value(*maps: Tensor) -> Tensor:
        return load(name)(student, teacher, student_maps=list(maps), teacher_maps=theirs)

    assert torch.autograd.gradcheck(value, tuple(cast(list[Tensor], further["student_maps"])))


@pytest.mark.parametrize("name", ZERO_AT_TEACHER)
def test_zero_where_the_student_is_the_teacher(name: str) -> None:
    student, _, further = inputs(name)
    maps = cast(list[Tensor], further.get("student_maps", []))
    further = {"student_maps": maps, "teacher_maps": maps} if maps else {}
    value = load(name)(student, student, **further)
    assert value == 0
    for gradient in slope(value, student, further):
        assert gradient.abs().max() < 1e-7  # the eps of PKT moves its minimum that little


@pytest.mark.parametrize("name", [n for n in NAMES if components.describe("transfers", n).is_class])
def test_modules_start_as_the_generator_says_and_go_on_from_their_state(name: str) -> None:
    student, teacher, further = inputs(name)
    first, second, other = load(name, seed=1), load(name, seed=1), load(name, seed=2)
    value = first(student, teacher, **further)
    assert second(student, teacher, **further) == value
    assert other(student, teacher, **further) != value
    assert isinstance(first, nn.Module)
    assert isinstance(other, nn.Module)
    other.load_state_dict(first.state_dict())
    for loss in (first, other):
        if isinstance(generator := getattr(loss, "generator", None), torch.Generator):
            generator.manual_seed(3)
    torch.testing.assert_close(
        other(student, teacher, **further), first(student, teacher, **further), rtol=0, atol=0
    )
