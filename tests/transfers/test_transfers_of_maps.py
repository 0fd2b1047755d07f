import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.transfers._maps import adaptive_average, match_size
from mltool.transfers.attention import attention
from mltool.transfers.fitnet import FitNet

NOTHING = torch.zeros(2, 1)


def maps(*shapes: tuple[int, ...], seed: int = 0) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(*shape, generator=generator, dtype=torch.float64) for shape in shapes]


def fitnet(own: tuple[int, ...], theirs: tuple[int, ...]) -> FitNet:
    generator = torch.Generator().manual_seed(0)
    return FitNet(student_channels=own, teacher_channels=theirs, generator=generator).double()


def test_fitnet_is_the_equation() -> None:
    loss = fitnet((2, 3), (4, 2))
    own, theirs = maps((2, 2, 3, 2), (2, 3, 2, 2)), maps((2, 4, 3, 2), (2, 2, 2, 2), seed=1)
    total = 0.0
    for stage, (mine, hint) in enumerate(zip(own, theirs, strict=True)):
        weight, terms = loss.weights[stage][:, :, 0, 0], 0.0
        b, c, h, w = hint.shape
        for i in range(b):
            for y in range(h):
                for x in range(w):
                    for k in range(c):
                        dots = [weight[k, m] * mine[i, m, y, x] for m in range(mine.shape[1])]
                        terms += (sum(dots) - hint[i, k, y, x]).item() ** 2
        total += terms / (b * c * h * w)
    value = loss(NOTHING, NOTHING, student_maps=own, teacher_maps=theirs)
    assert value.item() == pytest.approx(total)


def test_fitnet_starts_small_without_bias_and_learns() -> None:
    loss = FitNet(
        student_channels=(64,), teacher_channels=(256,), generator=torch.Generator().manual_seed(0)
    )
    (weight,) = loss.parameters()
    assert weight.shape == (256, 64, 1, 1)
    assert weight.abs().max() <= 0.005
    assert weight.std().item() == pytest.approx(0.005 / 3**0.5, rel=0.02)
    loss(
        NOTHING, NOTHING, student_maps=[torch.ones(2, 64, 2, 2)],
        teacher_maps=[torch.ones(2, 256, 2, 2)],
    ).backward()  # fmt: skip
    assert weight.grad is not None
    assert (weight.grad < 0).all()  # more of every channel, towards one


def test_fitnet_is_zero_for_a_teacher_that_is_the_convolution() -> None:
    loss = fitnet((3,), (5,))
    own = maps((2, 3, 4, 4))
    hint = F.conv2d(own[0], loss.weights[0])
    assert loss(NOTHING, NOTHING, student_maps=own, teacher_maps=[hint]) == 0


def test_attention_is_the_equation() -> None:
    own, theirs = maps((2, 3, 2, 3), (2, 2, 1, 2)), maps((2, 5, 2, 3), (2, 4, 1, 2), seed=1)
    total = 0.0
    for mine, other in zip(own, theirs, strict=True):
        terms, (_, _, h, w) = 0.0, mine.shape
        for i in range(2):
            both = []
            for side in (mine, other):
                flat = [
                    sum(side[i, c, y, x].item() ** 2 for c in range(side.shape[1])) / side.shape[1]
                    for y in range(h)
                    for x in range(w)
                ]
                length = sum(v**2 for v in flat) ** 0.5
                both.append([v / length for v in flat])
            terms += sum((a - b) ** 2 for a, b in zip(*both, strict=True))
        total += terms / (2 * h * w)
    value = attention(NOTHING.double(), NOTHING, own, theirs)
    assert value.item() == pytest.approx(total)


def test_attention_forgets_strength_and_order_of_channels() -> None:
    own, theirs = maps((2, 6, 4, 4)), maps((2, 3, 4, 4), seed=1)
    value = attention(NOTHING, NOTHING, own, theirs)
    order = torch.tensor([4, 0, 5, 2, 1, 3])
    same = attention(NOTHING, NOTHING, [-7 * own[0][:, order]], [0.01 * theirs[0]])
    torch.testing.assert_close(same, value)


@pytest.mark.parametrize(
    ("own", "theirs", "common"),
    [((4, 6), (2, 3), (2, 3)), ((3, 3), (7, 5), (3, 3)), ((8, 2), (4, 5), (4, 2))],
)
def test_the_larger_map_is_averaged(
    own: tuple[int, int], theirs: tuple[int, int], common: tuple[int, int]
) -> None:
    first, second = maps((2, 3, *own), (2, 4, *theirs))
    found = match_size(first, second)
    for given, made in zip((first, second), found, strict=True):
        torch.testing.assert_close(made, F.adaptive_avg_pool2d(given, common))
    loss = fitnet((3,), (4,))
    value = loss(NOTHING, NOTHING, student_maps=[first], teacher_maps=[second])
    expected = loss(NOTHING, NOTHING, student_maps=[found[0]], teacher_maps=[found[1]])
    torch.testing.assert_close(value, expected)


@pytest.mark.parametrize("size", [(1, 1), (3, 2), (6, 7), (7, 9)])
def test_averaging_is_that_of_torch(size: tuple[int, int]) -> None:
    (given,) = maps((2, 3, 7, 9))
    given.requires_grad_()
    ours, theirs = adaptive_average(given, *size), F.adaptive_avg_pool2d(given, size)
    torch.testing.assert_close(ours, theirs)
    ours, theirs = (torch.autograd.grad(x.square().sum(), given)[0] for x in (ours, theirs))
    torch.testing.assert_close(ours, theirs)


def test_attention_averages_energies_not_activations() -> None:
    own = torch.tensor([1.0, -1.0, 0.0, 0.0]).reshape(1, 1, 1, 4)  # activations cancel
    theirs = torch.tensor([1.0, 0.0]).reshape(1, 1, 1, 2)
    assert attention(NOTHING, NOTHING, [own], [theirs]) == 0


@pytest.mark.parametrize("missing", ["student_maps", "teacher_maps"])
def test_stages_come_in_pairs(missing: str) -> None:
    given = {"student_maps": maps((2, 3, 2, 2)), "teacher_maps": maps((2, 3, 2, 2))}
    given[missing] = []
    with pytest.raises(ValueError):
        attention(NOTHING, NOTHING, **given)
    with pytest.raises(ValueError):
        fitnet((3,), (3,))(NOTHING, NOTHING, **given)
    with pytest.raises(ValueError):
        fitnet((3, 4), (3,))
