import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from mltool.transfers.crd import CRD

IMAGES, DIM = 12, 4
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 2, 2, 2, 2, -1, -1])


def build(
    images: int = IMAGES,
    seed: int = 0,
    negatives: int = 6,
    temperature: float = 0.07,
    momentum: float = 0.5,
) -> CRD:
    loss = CRD(
        student_dim=3,
        teacher_dim=5,
        images=images,
        generator=torch.Generator().manual_seed(seed),
        dim=DIM,
        negatives=negatives,
        temperature=temperature,
        momentum=momentum,
    )
    return loss.double()


def batch(*rows: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        "student": torch.randn(len(rows), 3, generator=generator, dtype=torch.float64),
        "teacher": torch.randn(len(rows), 5, generator=generator, dtype=torch.float64),
        "index": torch.tensor(rows),
        "labels": LABELS[list(rows)],
    }


def know_all(loss: CRD) -> CRD:
    loss.known_labels.copy_(LABELS)
    return loss


def drawn(loss: CRD, index: Tensor, seed: int = 7) -> Tensor:
    """The rows that the next call draws if the generator is seeded so."""
    loss.generator.manual_seed(seed)
    rows, _ = loss._draw(index)
    loss.generator.manual_seed(seed)
    return rows


def by_loop(loss: CRD, given: dict[str, Tensor], rows: Tensor, z: list[float]) -> float:
    """Noise contrastive estimation as the paper writes it: of probabilities, without logarithms."""
    own = F.normalize(loss.student_projection(given["student"]))
    theirs = F.normalize(loss.teacher_projection(given["teacher"]))
    noise = loss.negatives / len(loss.known_labels)
    total = 0.0
    for side, (vectors, memory) in enumerate(
        [(own, loss.teacher_memory), (theirs, loss.student_memory)]
    ):
        for b in range(len(rows)):
            for k, row in enumerate(rows[b]):
                chance = math.exp((vectors[b] @ memory[row]).item() / loss.temperature) / z[side]
                wanted = chance if k == 0 else noise
                total -= math.log(wanted / (chance + noise)) / len(rows)
    return total


def test_is_the_equation() -> None:
    loss, given = know_all(build(temperature=0.3)), batch(1, 5, 8, 10)
    rows = drawn(loss, given["index"])
    own = F.normalize(loss.student_projection(given["student"]))
    theirs = F.normalize(loss.teacher_projection(given["teacher"]))
    z = []
    for vectors, memory in [(own, loss.teacher_memory), (theirs, loss.student_memory)]:
        every = [math.exp((vectors[b] @ memory[r]).item() / 0.3) for b in range(4) for r in rows[b]]
        z.append(IMAGES * sum(every) / len(every))
    expected = by_loop(loss, given, rows, z)
    assert loss(**given).item() == pytest.approx(expected)
    # the constants stay as they are in the second batch
    given = batch(0, 3, seed=1)
    expected = by_loop(loss, given, drawn(loss, given["index"]), z)
    assert loss(**given).item() == pytest.approx(expected)


def test_z_is_set_once_and_kept_in_the_state() -> None:
    loss = build()
    assert loss.log_z.isinf().all()
    loss(**batch(0, 4, 7))
    first = loss.state_dict()["log_z"].clone()
    assert first.isfinite().all()
    loss(**batch(2, 3, seed=1))
    assert loss.log_z.equal(first)
    other = build(seed=5)
    other.load_state_dict(loss.state_dict())
    other(**batch(1, 8, seed=2))
    assert other.log_z.equal(first)


def test_memories_take_in_the_batch_after_the_loss() -> None:
    loss, given = build(momentum=0.25), batch(2, 9)
    before = {"student": loss.student_memory.clone(), "teacher": loss.teacher_memory.clone()}
    loss(**given)
    for side, projection in [
        ("student", loss.student_projection), ("teacher", loss.teacher_projection)
    ]:  # fmt: skip
        now, then = getattr(loss, f"{side}_memory"), before[side]
        vectors = F.normalize(projection(given[side]))
        for row, vector in zip((2, 9), vectors, strict=True):
            blend = 0.25 * then[row] + 0.75 * vector
            torch.testing.assert_close(now[row], blend / blend.norm())
        others = [r for r in range(IMAGES) if r not in (2, 9)]
        assert now[others].equal(then[others])
        assert not now.requires_grad


def test_views_of_one_image_enter_by_their_mean_in_any_order() -> None:
    memories = []
    for order in ([0, 1, 2], [2, 1, 0]):
        loss, given = build(), batch(4, 4, 6)
        loss(**{key: value[order] for key, value in given.items()})
        memories.append(loss.student_memory.clone())
    torch.testing.assert_close(memories[0], memories[1])
    loss, given = build(), batch(4, 4, 6)
    vectors = F.normalize(loss.student_projection(given["student"]))
    expected = F.normalize(loss.student_memory[4] + vectors[:2].mean(dim=0), dim=0)
    torch.testing.assert_close(memories[0][4], expected.detach())


def test_negatives_are_of_other_classes_and_all_alike() -> None:
    loss = know_all(build(negatives=4000))
    index = torch.tensor([1, 5, 6, 10])
    rows, exists = loss._draw(index)
    assert exists.all()
    assert rows[:, 0].equal(index)
    allowed = [
        {r for r in range(IMAGES) if r > 2},
        {r for r in range(IMAGES) if r not in (3, 4, 5)},
        {r for r in range(IMAGES) if r not in (6, 7, 8, 9)},
        {r for r in range(IMAGES) if r != 10},  # unknown: all but itself
    ]
    for found, wanted in zip(rows[:, 1:], allowed, strict=True):
        counts = torch.bincount(found, minlength=IMAGES)
        assert set(counts.nonzero().flatten().tolist()) == wanted
        share = 4000 / len(wanted)
        assert (counts[list(wanted)] - share).abs().max() < 5 * share**0.5


def test_labels_come_to_be_known_batch_by_batch() -> None:
    loss = build(negatives=500)
    loss(**batch(0, 3))
    assert loss.known_labels.tolist() == [0, -1, -1, 1] + [-1] * 8
    rows, _ = loss._draw(torch.tensor([0]))
    assert 1 in rows  # of the same class, which nobody has told yet
    loss(**batch(1, 2))
    rows, _ = loss._draw(torch.tensor([0]))
    assert not {1, 2} & set(rows[0, 1:].tolist())


def test_draws_depend_on_the_generator_alone() -> None:
    loss = know_all(build())
    index = torch.tensor([0, 4])
    torch.manual_seed(1)
    first = drawn(loss, index)
    torch.manual_seed(2)
    assert drawn(loss, index).equal(first)
    assert not drawn(loss, index, seed=8).equal(first)


def test_without_labels() -> None:
    loss, given = build(), batch(0, 1, 2)
    given["labels"] = torch.full((3,), -1)
    rows = drawn(loss, given["index"])
    assert not (rows[:, 1:] == given["index"][:, None]).any()
    assert loss(**given).isfinite()


def test_without_any_negative_only_the_positive_counts() -> None:
    loss, given = build(images=3), batch(0, 1, 2)
    given["labels"] = torch.zeros(3, dtype=torch.int64)
    own = F.normalize(loss.student_projection(given["student"]))
    theirs = F.normalize(loss.teacher_projection(given["teacher"]))
    sims = [(own * loss.teacher_memory).sum(dim=1), (theirs * loss.student_memory).sum(dim=1)]
    value = loss(**given)
    expected = 0.0
    for sim, log_z in zip(sims, loss.log_z, strict=True):
        odds = sim / loss.temperature - log_z - math.log(6 / 3)
        expected += F.binary_cross_entropy_with_logits(odds, torch.ones_like(odds)).item()
    assert value.item() == pytest.approx(expected)


def test_a_small_temperature_does_not_overflow() -> None:
    loss = build(temperature=0.004).float()
    given = batch(0, 4, 8)
    with torch.no_grad():
        loss.teacher_memory.copy_(F.normalize(torch.ones(IMAGES, DIM)))
    value = loss(**given)
    value.backward()
    assert value.isfinite()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in loss.parameters())


def test_both_projections_learn() -> None:
    loss = build()
    loss(**batch(0, 4, 8)).backward()
    assert all(p.grad is not None and (p.grad != 0).any() for p in loss.parameters())


def test_learning_makes_vectors_find_their_own_memory() -> None:
    loss, given = know_all(build(seed=1)), batch(*range(0, IMAGES, 2))
    optimizer = torch.optim.Adam(loss.parameters(), lr=0.05)
    found = []
    for _ in range(60):
        value = loss(**given)
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
        found.append(value.item())
    assert found[-1] < 0.7 * found[0]
    own = F.normalize(loss.student_projection(given["student"]))
    nearest = (own @ loss.teacher_memory.T).argmax(dim=1)
    assert (nearest == given["index"]).double().mean() >= 0.5
