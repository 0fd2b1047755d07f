"""Self-supervised losses against lightly's values, closed forms and plain loops, in float64."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional

from mltool import components
from mltool.moment import Moment
from mltool.pretexts import Pretext
from mltool.pretexts._queue import Queue
from mltool.pretexts.byol import compare_crosswise
from mltool.pretexts.swav import balance, swap_predictions

GOLDEN = json.loads((Path(__file__).parent.parent / "golden/pretexts.json").read_text())
START = Moment(step=0, epoch=0, steps=10, epochs=4)
NAMES = components.names("pretexts")


def draw(*shape: int, seed: int) -> Tensor:
    """Draw what tests/golden/make_pretexts.py draws."""
    return torch.from_numpy(np.random.RandomState(seed).normal(size=shape))


def load(text: str, *, channels: int = 8, images: int = 100) -> Pretext:
    """Load a task in float64, with heads by a fixed seed."""
    torch.manual_seed(0)
    return components.load("pretexts", text, channels=channels, images=images).double()


def near(value: Tensor | float, golden: float) -> bool:
    """Return whether a value is lightly's, to 1e-9."""
    return float(value) == pytest.approx(golden, abs=1e-9)


def test_codes_are_balanced() -> None:
    codes = balance(draw(6, 5, seed=20), epsilon=0.5, iterations=3)
    torch.testing.assert_close(
        codes, torch.tensor(GOLDEN["sinkhorn"], dtype=torch.float64), atol=1e-9, rtol=0
    )
    many = balance(draw(30, 5, seed=0), epsilon=0.5, iterations=200)
    torch.testing.assert_close(many.sum(dim=1), torch.ones(30).double())
    torch.testing.assert_close(many.sum(dim=0), torch.full((5,), 6.0).double())


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([[1, 0], [0, 1]], [[0.8808, 0.1192], [0.1192, 0.8808]]),
        ([[1, 0], [1, 0]], [[0.5, 0.5], [0.5, 0.5]]),
        (
            [[1, 0.2], [0.9, 0.8], [0.1, 0.3]],
            [[0.7599, 0.2401], [0.4384, 0.5616], [0.2999, 0.7001]],
        ),
    ],
)
def test_codes_by_hand(scores: list, expected: list) -> None:
    codes = balance(torch.tensor(scores, dtype=torch.float64), epsilon=0.5, iterations=3)
    torch.testing.assert_close(
        codes, torch.tensor(expected, dtype=torch.float64), atol=5e-5, rtol=0
    )


def test_codes_stay_finite_where_the_exponential_would_not() -> None:
    codes = balance(torch.tensor([[1.0, -1.0], [1.0, 1.0]]), epsilon=1e-3, iterations=3)
    assert codes.isfinite().all()


@pytest.mark.parametrize("key", ["swav", "swav_epsilon", "swav_queue"])
def test_swav_is_lightlys(key: str) -> None:
    epsilon, size = (0.5, 1) if key == "swav_epsilon" else (0.05, 9)
    swav = load(f"swav:prototypes=5,dim=8,epsilon={epsilon},queue={size},queue_from=1")
    swav.prototypes.data = 3 * draw(5, 8, seed=1)  # of any length
    if key == "swav_queue":
        for queue, rows in zip(swav.queues, draw(2, size, 8, seed=2), strict=True):
            queue.put(functional.normalize(rows))
    loss = swav(draw(5, 6, 8, seed=0), None, START)["swav"]
    assert near(loss, GOLDEN[key])
    torch.testing.assert_close(swav.prototypes.norm(dim=1), torch.ones(5).double())


@pytest.mark.parametrize("symmetric", [False, True])
def test_moco_is_lightlys(symmetric: bool) -> None:
    moco = load(f"moco:dim=8,queue=10,symmetric={symmetric}")
    moco.queue.rows = functional.normalize(draw(10, 8, seed=5))
    loss = moco(draw(2, 6, 8, seed=3), draw(2, 6, 8, seed=4), START)["moco"]
    assert near(loss, GOLDEN["moco_symmetric" if symmetric else "moco"])
    keys = functional.normalize(draw(2, 6, 8, seed=4), dim=-1)
    put = keys.flatten(0, 1) if symmetric else keys[1]
    for number in range(max(0, len(put) - 10), len(put)):
        torch.testing.assert_close(moco.queue.rows[number % 10], put[number])


def test_byol_is_lightlys() -> None:
    assert near(compare_crosswise(draw(2, 6, 8, seed=6), draw(2, 6, 8, seed=7)), GOLDEN["byol"])


@pytest.mark.parametrize(("cosine", "loss"), [(1, 0), (-1, 8), (0, 4)])
def test_byol_by_hand(cosine: float, loss: float) -> None:
    side = math.sqrt(1 - cosine**2)
    predictions = torch.tensor([[[2.0, 0.0]], [[1.0, 0.0]]])
    targets = torch.tensor([[[cosine, side]], [[3 * cosine, 3 * side]]])
    assert float(compare_crosswise(predictions, targets)) == pytest.approx(loss, abs=1e-6)


def test_simclr_is_lightlys() -> None:
    simclr = load("simclr:temperature=0.3,dim=8")
    assert near(simclr(draw(2, 6, 8, seed=8), None, START)["simclr"], GOLDEN["simclr"])


def test_moco_by_hand() -> None:
    """A query equal to its key, ten keys orthogonal to it: ln(1 + 10 exp(-5))."""
    moco = load("moco:dim=12,queue=10")
    moco.queue.rows = torch.eye(12).double()[:10]
    vectors = torch.eye(12).double()[11].expand(2, 3, 12)
    assert near(moco(vectors, vectors, START)["moco"], math.log1p(10 * math.exp(-5)))


def test_simclr_by_a_loop() -> None:
    views = functional.normalize(draw(2, 5, 8, seed=1), dim=-1)
    rows, total = views.flatten(0, 1).tolist(), 0.0
    for i, row in enumerate(rows):
        sims = [
            math.exp(sum(a * b for a, b in zip(row, other, strict=True)) / 0.2) for other in rows
        ]
        total -= math.log(sims[(i + 5) % 10] / (sum(sims) - sims[i]))
    assert near(load("simclr:dim=8")(views, None, START)["simclr"], total / 10)


@pytest.mark.parametrize("name", NAMES)
def test_the_order_of_images_is_all_the_same(name: str) -> None:
    order, student, teacher = [3, 0, 4, 1, 2], *draw(2, 2, 5, 8, seed=1)
    first = load(f"{name}:dim=8")(student, teacher, START)
    second = load(f"{name}:dim=8")(student[:, order], teacher[:, order], START)
    torch.testing.assert_close(first, second)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("images", [1, 2, 40])
def test_losses_are_finite_and_have_a_gradient(name: str, images: int) -> None:
    pretext = load(f"{name}:dim=8,hidden=6")
    vectors = draw(2, images, 8, seed=2).requires_grad_()
    projected = pretext.projector(vectors)
    loss = sum(pretext(projected, projected.detach(), START).values())
    loss.backward()
    assert loss.isfinite()
    assert vectors.grad is not None
    assert vectors.grad.isfinite().all()
    assert images == 1 or vectors.grad.abs().max() > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_vectors_stay_finite(name: str, value: float) -> None:
    pretext = load(f"{name}:dim=8")
    student = torch.full((2, 6, 8), value, dtype=torch.float64, requires_grad=True)
    loss = sum(pretext(student, student.detach(), START).values())
    loss.backward()
    assert loss.isfinite()
    assert student.grad.isfinite().all()


@pytest.mark.parametrize("name", sorted({"moco", "byol"}))
def test_nothing_is_learned_through_the_teacher(name: str) -> None:
    student, teacher = (each.requires_grad_() for each in draw(2, 2, 5, 8, seed=1))
    pretext = load(f"{name}:dim=8")
    sum(pretext(student, teacher.detach(), START).values()).backward()
    assert student.grad.abs().max() > 0
    assert components.describe("pretexts", name).declared.momentum


def test_the_gradient_of_the_codes_is_none() -> None:
    """Only the predicting views learn, never the codes: one large view alone has no gradient."""
    views = draw(2, 4, 6, seed=3).requires_grad_()
    codes = balance(views, epsilon=0.05, iterations=3)
    assert not codes.requires_grad
    swap_predictions(views, codes).backward()
    assert views.grad.abs().max() > 0


def test_prototypes_are_frozen_at_first() -> None:
    swav = load("swav:dim=8,prototypes=5,freeze_epochs=2")
    for epoch in range(3):
        moment = Moment(step=10 * epoch, epoch=epoch, steps=10, epochs=4)
        swav.prototypes.grad = None
        swav(draw(2, 6, 8, seed=0).requires_grad_(), None, moment)["swav"].backward()
        assert (swav.prototypes.grad is None) == (epoch < 2)


def test_the_queue_of_swav_waits_and_is_used_when_full() -> None:
    swav = load("swav:dim=8,prototypes=5,queue=10,queue_from=0.5")
    plain = load("swav:dim=8,prototypes=5,queue=0")
    counts, equal = [], []
    for step in range(16, 24):
        views, moment = draw(3, 4, 8, seed=step), Moment(step, step // 10, steps=10, epochs=4)
        equal.append(
            torch.equal(swav(views, None, moment)["swav"], plain(views, None, moment)["swav"])
        )
        counts.append(int(swav.queues[0].count))
    assert counts == [0, 0, 0, 0, 4, 8, 12, 16]
    assert equal == [True] * 7 + [False]


def test_momentum_rises_to_one() -> None:
    byol = load("byol:momentum=0.9")
    at = [byol.momentum(Moment(step, 0, steps=10, epochs=4)) for step in (0, 20, 40)]
    assert at == pytest.approx([0.9, 0.95, 1.0])
    assert load("moco:momentum=0.7").momentum(START) == 0.7


@pytest.mark.parametrize(("images", "size"), [(100_000, 4096), (400, 100), (3, 1)])
def test_the_usual_queue_of_moco_is_a_quarter_of_the_images(images: int, size: int) -> None:
    assert len(load("moco:dim=8", images=images).queue.rows) == size


def test_the_queue_keeps_the_latest_rows_in_turn() -> None:
    queue, rows = Queue(torch.zeros(5, 1)), torch.arange(1.0, 40.0)[:, None]
    taken = 0
    for count in (2, 2, 3, 1, 5, 12, 0, 4):
        queue.put(rows[taken : taken + count])
        taken += count
        assert queue.is_full == (taken >= 5)
        for number in range(max(0, taken - 5), taken):
            assert queue.rows[number % 5] == rows[number]


@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_network_that_tells_nothing_apart(name: str) -> None:
    pretext, equal = load(f"{name}:dim=8,hidden=6"), torch.ones(2, 6, 8).double()
    chance = pretext.chance_loss(6)
    if chance is None:
        return
    if name == "moco":
        pretext.queue.rows = functional.normalize(torch.ones_like(pretext.queue.rows))
    if name == "swav":
        pretext.prototypes.data[:] = 1.0
    assert near(sum(pretext(equal, equal, START).values()), chance)


def test_heads_normalise_over_images_and_views() -> None:
    projector = load("simclr:hidden=6,dim=4").projector
    hidden = projector[1](projector[0](draw(3, 7, 8, seed=0)))
    torch.testing.assert_close(hidden.mean(dim=(0, 1)), torch.zeros(6).double())
    assert not list(projector.buffers())
