"""Miners, memories and mixed examples of a student, whose candidates are its teacher's vectors."""

from collections.abc import Callable

import pytest
import torch
from tiny_runs import moment
from torch import Generator, Tensor
from torch.nn import functional

from mltool.commands.objective import Lesson, Pairing, choose_additions, list_terms
from mltool.engine.data import Batch
from mltool.engine.objectives.objective import Objective
from mltool.errors import UsageError
from mltool.options.additions import refuse_additions
from mltool.options.choices import parse_loss
from mltool.options.objective import ObjectiveOptions

DIM, CLASSES = 4, 3
MARGIN = 0.1
Step = Callable[[int, Tensor], dict[str, Tensor]]


class Table:
    """A teacher with a vector for each row of the image list."""

    hooks = None

    def __init__(self) -> None:
        self.vectors = units(30, seed=7)

    def embed_batch(self, batch: Batch) -> Tensor:
        return self.vectors[batch.rows]


TEACHER_LABELS = torch.arange(30) % CLASSES


def units(count: int, *, seed: int) -> Tensor:
    generator = Generator().manual_seed(seed)
    return functional.normalize(torch.randn(count, DIM, generator=generator), dim=1)


def rows_of(step: int) -> Tensor:
    """Eight images a step, some of them again and again."""
    return torch.randperm(30, generator=Generator().manual_seed(step))[:8]


def student(
    *losses: str, positives: str = "class", symmetric: bool = False, **options
) -> tuple[Objective, Step]:
    """An objective of `distill`, and its step n on vectors [8, D] of the student."""
    generator = Generator()
    chosen = [parse_loss(text, with_teacher=True) for text in losses]
    given = ObjectiveOptions(**options)
    how = {"miner": given.miner, "memory": given.memory, "mixup": given.mixup}
    refuse_additions(chosen, **how, symmetric=symmetric)
    terms = list_terms(
        chosen,
        Pairing(positives, symmetric),  # type: ignore[arg-type]
        choose_additions(given, epoch_steps=0),
        classes=CLASSES,
        dim=DIM,
        generator=generator,
        lesson=Lesson(Table(), context={"student_dim": DIM, "teacher_dim": DIM, "images": 30}),
    )
    objective = Objective(terms, seed=0, generator=generator, raw=True, teacher=Table())
    return objective, lambda step, vectors: take(objective, step, vectors)


def take(objective: Objective, step: int, vectors: Tensor) -> dict[str, Tensor]:
    rows = rows_of(step)
    batch = Batch(vectors, TEACHER_LABELS[rows], rows, torch.zeros_like(rows))
    return objective({"main": batch}, lambda images, **how: images, moment(step))


def contrastive(anchors: Tensor, rows: Tensor, others: Tensor, vectors: Tensor, rule: str) -> float:
    """The mean over anchors of the sum over candidates, of whom some show the anchor's image."""
    total = 0.0
    for anchor, row in zip(anchors, rows.tolist(), strict=True):
        for vector, other in zip(vectors, others.tolist(), strict=True):
            sim = float(anchor @ vector)
            if row == other:
                total -= sim * (rule == "class+self")
            elif TEACHER_LABELS[row] == TEACHER_LABELS[other]:
                total -= sim
            else:
                total += max(0.0, sim - MARGIN)
    return total / len(anchors)


@pytest.mark.parametrize("positives", ["class", "class+self"])
def test_the_memory_holds_the_teachers_vectors(positives: str) -> None:
    memory = {"memory": 20, "memory_weight": 0.5}
    _, step = student(f"contrastive:margin={MARGIN}", positives=positives, **memory)
    for number in range(4):
        values = step(number, units(8, seed=number))
    remembered = torch.cat([rows_of(number) for number in range(3)])[-20:]
    assert set(remembered.tolist()) & set(rows_of(3).tolist())  # an image again
    expected = contrastive(
        units(8, seed=3), rows_of(3), remembered, Table().vectors[remembered], positives
    )
    assert list(values) == ["contrastive", "contrastive/memory"]
    assert values["contrastive/memory"].item() == pytest.approx(0.5 * expected, rel=1e-4)


def test_a_symmetric_memory_holds_the_students_vectors() -> None:
    _, step = student(f"contrastive:margin={MARGIN}", symmetric=True, memory=20)
    first, second = (step(number, units(8, seed=number)) for number in range(2))
    assert list(first) == ["contrastive"]
    anchors, held = units(8, seed=1), units(8, seed=0)
    labels, others = TEACHER_LABELS[rows_of(1)], TEACHER_LABELS[rows_of(0)]
    sim, same = anchors @ held.T, labels[:, None] == others
    each = torch.where(same, -sim, (sim - MARGIN).relu())
    torch.testing.assert_close(second["contrastive/memory"], each.sum(1).mean())


def test_images_without_labels_are_remembered_as_other_images() -> None:
    """By `self` an image meets its own vector of the teacher again, and those of all others."""
    objective, _ = student(f"contrastive:margin={MARGIN}", positives="self", memory=12)
    for number in range(2):
        rows = rows_of(number)
        batch = Batch(units(8, seed=number), torch.full((8,), -1), rows, torch.zeros_like(rows))
        values = objective({"main": batch}, lambda images, **how: images, moment(number))
    others = Table().vectors[rows_of(0)]  # four of twelve slots are empty
    sim = units(8, seed=1) @ others.T
    is_self = rows_of(1)[:, None] == rows_of(0)
    each = torch.where(is_self, -sim, (sim - MARGIN).relu())
    torch.testing.assert_close(values["contrastive/memory"], each.sum(1).mean())


def test_the_miner_chooses_among_the_teachers_vectors() -> None:
    _, step = student(f"contrastive:margin={MARGIN}", miner="hard")
    anchors, rows = units(8, seed=0), rows_of(0)
    total, labels = 0.0, TEACHER_LABELS[rows]
    sim = anchors @ Table().vectors[rows].T
    for a in range(8):
        same = [j for j in range(8) if labels[j] == labels[a] and j != a]
        others = [j for j in range(8) if labels[j] != labels[a]]
        if not same:
            continue
        hardest = max(float(sim[a, j]) for j in others)
        total += max(0.0, hardest - MARGIN) - min(float(sim[a, j]) for j in same)
    assert step(0, anchors)["contrastive"].item() == pytest.approx(total / 8, rel=1e-5)


@pytest.mark.parametrize("pairs", ["pos-neg", "anchor-neg"])
def test_what_is_mixed_are_the_teachers_vectors(pairs: str) -> None:
    """Against vectors really mixed and renormalised; the anchor's own is the teacher's of it."""
    settings = f"embedding:pairs={pairs},per_anchor=none,weight=0.4"
    objective, step = student(f"contrastive:margin={MARGIN}", mixup=settings)
    anchors = units(8, seed=0)
    raw = (3 * anchors).requires_grad_()
    seen = []
    term = objective.terms["0"]
    weigh = term.weigh
    term.weigh = lambda mixed, anchors: (seen.append(mixed), weigh(mixed, anchors))[1]
    value = step(0, raw)["contrastive/mixed"]
    mixed = seen[-1]
    vectors, labels = Table().vectors[rows_of(0)], TEACHER_LABELS[rows_of(0)]
    found = 0
    for a in range(8):
        firsts = [a] if pairs == "anchor-neg" else positives_of(labels, a)
        options = {
            (p, n): (vectors[p], vectors[n])
            for p in firsts
            for n in range(8)
            if labels[n] != labels[a]
        }
        for k in (mixed.pos[a] + mixed.neg[a] > 0).nonzero().flatten().tolist():
            lam = mixed.pos[a, k].item()
            assert mixed.neg[a, k].item() == pytest.approx(1 - lam, abs=1e-6)
            sims = [
                float(anchors[a] @ functional.normalize(mix, dim=0))
                for mix in (lam * p + (1 - lam) * n for p, n in options.values())
            ]
            assert min(abs(sim - mixed.sim[a, k].item()) for sim in sims) < 1e-5
            found += 1
        assert int((mixed.pos[a] + mixed.neg[a] > 0).sum()) == len(options)
    assert found > 8
    each = -mixed.pos * mixed.sim + mixed.neg * (mixed.sim - MARGIN).relu()
    torch.testing.assert_close(value, 0.4 * each.sum(1).mean())
    value.backward()
    assert raw.grad.abs().sum() > 0


def positives_of(labels: Tensor, anchor: int) -> list[int]:
    return [j for j in range(8) if j != anchor and labels[j] == labels[anchor]]


def test_all_three_stand_beside_a_transfer() -> None:
    texts = ("pkt", "contrastive", "proxy-anchor")
    objective, step = student(*texts, memory=20, miner="random", mixup="embedding")
    values = [list(step(number, units(8, seed=number))) for number in range(2)]
    names = ["pkt", "contrastive", "contrastive/memory", "contrastive/mixed"]
    names += ["proxy-anchor", "proxy-anchor/mixed"]
    assert values == [[name for name in names if "memory" not in name], names]
    # the proxies are saved once, under the number of their loss
    assert [key for key, _ in objective.named_parameters()] == ["terms.2.proxies.weight"]
    keys = {key for key in objective.state_dict() if "memory" not in key}
    assert keys == {"terms.2.proxies.weight"}


def test_the_whole_is_the_same_again_from_a_saved_state() -> None:
    options = {"memory": 20, "miner": "random", "mixup": "embedding:pairs=pos-neg+anchor-neg"}
    one, step = student("contrastive", **options)
    other, again = student("contrastive", **options)
    for number in range(2):
        step(number, units(8, seed=number))
    other.load_state_dict(one.state_dict())
    assert step(2, units(8, seed=2)) == again(2, units(8, seed=2))


@pytest.mark.parametrize(
    ("losses", "symmetric", "additions", "message"),
    [
        (["contrastive"], False, {"mixup": "input"}, "the teacher's vectors, which only"),
        (["contrastive"], False, {"mixup": "feature"}, "with --symmetric they are the student's"),
        (
            ["regression"],
            False,
            {"mixup": "embedding"},
            "regression compares an image with its own",
        ),
        (["regression"], False, {"memory": 9}, "--memory has no place here"),
        (["pkt"], False, {"mixup": "embedding"}, "no --loss compares pairs"),
        (["pkt"], False, {"memory": 9}, "no --loss compares pairs"),
        (["pkt", "mutual-information"], False, {"mixup": "embedding"}, "not pairs"),
        (["regression"], False, {"miner": "hard"}, "nothing to choose from"),
        (["pkt", "proxy-anchor"], False, {"miner": "hard"}, "nothing to choose from"),
        (["contrastive"], False, {"miner": "angular"}, "say --symmetric"),
    ],
)
def test_what_is_refused(losses: list, symmetric: bool, additions: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        student(*losses, symmetric=symmetric, **additions)


def test_images_are_mixed_where_the_student_stands_on_both_sides() -> None:
    for level in ("input", "feature"):
        objective, _ = student("contrastive", symmetric=True, mixup=level)
        assert objective.stage is not None
