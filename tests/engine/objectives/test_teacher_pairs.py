"""Pair losses against a teacher's vectors: the papers' sums as loops, PML, who is a positive."""

import math
from collections.abc import Callable

import pytest
import torch
from pytorch_metric_learning import losses as pml
from pytorch_metric_learning.distances import CosineSimilarity
from pytorch_metric_learning.reducers import DoNothingReducer
from tiny_runs import moment
from torch import Tensor
from torch.nn import functional

from mltool.commands.objective import Additions, Pairing, list_terms
from mltool.components import Choice
from mltool.engine.data import Batch
from mltool.engine.objectives.step_outputs import StepOutputs, TupleCandidates
from mltool.errors import UsageError
from mltool.options import choices
from mltool.options.additions import refuse_candidates
from mltool.options.choices import parse_loss

LABELS = torch.tensor([0, 0, 1, 1, 2, 0])
ROWS = torch.tensor([3, 7, 1, 4, 9, 2])


def vectors(seed: int, rows: int = 6, dim: int = 4) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, dim, generator=generator, dtype=torch.float64)


class Taught:
    """A teacher whose vectors are as asked for."""

    hooks = None

    def __init__(self, vectors: Tensor) -> None:
        self.vectors = vectors

    def embed_batch(self, batch: Batch) -> Tensor:
        return self.vectors


def seen(
    *,
    labels: Tensor = LABELS,
    rows: Tensor = ROWS,
    tuples: TupleCandidates | None = None,
    raw: Tensor | None = None,
    weights: Tensor | None = None,
    teacher: bool = True,
) -> StepOutputs:
    raw = vectors(0).requires_grad_() if raw is None else raw
    columns = {} if weights is None else {"weight": weights}
    step = StepOutputs(
        batch=Batch(raw, labels, rows, torch.zeros_like(rows), columns=columns),
        vectors=raw,
        is_raw=True,
        normalizes=True,
        moment=moment(),
        model=lambda images, **how: images,
        generator=torch.Generator(),
        teacher=Taught(functional.normalize(vectors(1))) if teacher else None,
    )
    if tuples is not None:
        step.__dict__["teacher_tuples"] = tuples  # in place of what it would read
    return step


def compared(text: str, **changes) -> Callable[[StepOutputs], Tensor]:
    """The value of a loss, as `distill` lists it."""
    settings = {"positives": "class", "symmetric": False, "images_per_tuple": None}
    choice = parse_loss(text, with_teacher=True)
    pairing = Pairing(**settings | changes)
    refuse_candidates(
        [choice],
        positives=pairing.positives,
        symmetric=pairing.symmetric,
        has_tuples=pairing.images_per_tuple is not None,
    )
    terms = list_terms(
        [choice],
        pairing,
        Additions(),
        classes=3,
        dim=4,
        generator=torch.Generator(),
    )
    (term,) = terms.values()
    return lambda step: term(step)[term.name]


def value(loss: Tensor) -> float:
    return loss.detach().item()


def contrastive_loop(
    batch: StepOutputs, margin: float, *, own: float, same: float, other: float
) -> float:
    """mean_a of the sum over the teacher's vectors; the weight of a term tells if it counts."""
    total = 0.0
    for a in range(6):
        for x in range(6):
            s = float(batch.embeddings[a].detach() @ batch.teacher_vectors[x])
            if a == x:
                total -= own * s
            elif batch.labels[a] == batch.labels[x] >= 0:
                total -= same * s
            elif min(batch.labels[a], batch.labels[x]) >= 0:
                total += other * max(0.0, s - margin)
    return total / 6


@pytest.mark.parametrize(
    ("text", "own", "same", "other"),
    [
        ("contrastive:margin=0.2", 0, 1, 1),
        ("contrastive+:margin=0.2", 1, 1, 1),
        ("regression", 1, 0, 0),
        ("contrastive+:margin=0.2,weight=3", 3, 3, 3),
    ],
)
def test_the_published_sums(text: str, own: float, same: float, other: float) -> None:
    batch = seen()
    expected = contrastive_loop(batch, 0.2, own=own, same=same, other=other)
    assert value(compared(text)(batch)) == pytest.approx(expected)


def test_regression_is_torchs_cosine_embedding_loss() -> None:
    batch = seen()
    expected = functional.cosine_embedding_loss(batch.vectors, batch.teacher_vectors, torch.ones(6))
    assert value(compared("regression")(batch)) + 1 == pytest.approx(value(expected))


def test_multi_similarity_is_pmls_with_a_reference() -> None:
    batch = seen()
    oracle = pml.MultiSimilarityLoss(alpha=2, beta=40, base=0.5)
    found = compared("multi-similarity:alpha=2,beta=40,base=0.5", positives="class+self")(batch)
    expected = oracle(
        batch.vectors, LABELS, ref_emb=batch.teacher_vectors, ref_labels=LABELS.clone()
    )
    assert value(found) == pytest.approx(value(expected), rel=1e-6)


def test_triplet_is_pmls_with_a_reference() -> None:
    batch = seen()
    oracle = pml.TripletMarginLoss(
        margin=0.3, distance=CosineSimilarity(), reducer=DoNothingReducer()
    )
    each = oracle(batch.vectors, LABELS, ref_emb=batch.teacher_vectors, ref_labels=LABELS.clone())[
        "loss"
    ]["losses"]
    text = "triplet:margin=0.3,form=similarity,average=anchors"
    found = compared(text, positives="class+self")(batch)
    assert value(found) * 6 == pytest.approx(value(each.sum()))


def test_the_gradient_reaches_the_student_alone() -> None:
    batch = seen()
    compared("contrastive+")(batch).backward()
    assert batch.vectors.grad is not None
    assert batch.vectors.grad.abs().sum() > 0
    assert batch.teacher_vectors.grad is None


def test_views_of_one_image_are_the_image_itself() -> None:
    batch = seen(rows=torch.tensor([3, 3, 1, 4, 9, 2]))
    s = batch.embeddings @ batch.teacher_vectors.T
    expected = -(s.diagonal().sum() + s[0, 1] + s[1, 0]) / 6
    assert value(compared("regression")(batch)) == pytest.approx(float(expected.detach()))
    pulled = compared("contrastive:margin=2")(batch)  # 0 and 1 are no positives of each other
    rest = -(s[0, 5] + s[1, 5] + s[5, 0] + s[5, 1] + s[2, 3] + s[3, 2]) / 6
    assert value(pulled) == pytest.approx(float(rest.detach()))


def test_without_labels_all_other_images_are_negatives_of_self() -> None:
    batch = seen(labels=torch.full((6,), -1))
    found = compared("contrastive:margin=0.2", positives="self")(batch)
    s = (batch.embeddings @ batch.teacher_vectors.T).detach()
    off = (s - 0.2).relu().masked_fill(torch.eye(6, dtype=torch.bool), 0)
    assert value(found) == pytest.approx(float((off.sum() - s.trace()) / 6))
    assert value(compared("contrastive+")(batch)) == pytest.approx(float(-s.trace() / 6))
    assert math.isfinite(value(compared("multi-similarity")(batch)))


@pytest.mark.parametrize(("text", "own", "same"), [("contrastive", 0, 1), ("contrastive+", 1, 1)])
def test_tuples_are_compared_within(text: str, own: float, same: float) -> None:
    candidates = functional.normalize(vectors(2, 6 * 4).reshape(6, 4, 4), dim=2)
    exists = torch.ones(6, 4, dtype=torch.bool)
    exists[2, 3] = False
    batch = seen(tuples=TupleCandidates(candidates, exists))
    total = 0.0
    for a in range(6):
        s = [float(batch.embeddings[a].detach() @ candidates[a, k]) for k in range(4)]
        total -= own * float(batch.embeddings[a].detach() @ batch.teacher_vectors[a]) + same * s[0]
        total += sum(max(0.0, s[k] - 0.1) for k in range(1, 4) if exists[a, k])
    found = compared(f"{text}:margin=0.1", images_per_tuple=5)(batch)
    assert value(found) == pytest.approx(total / 6)


def test_tuples_of_the_student_itself() -> None:
    raw = vectors(3, 6).requires_grad_()
    units = functional.normalize(raw)
    whole = units.reshape(2, 3, 4)
    batch = seen(raw=raw, teacher=False)
    found = compared("contrastive:margin=0", symmetric=True, images_per_tuple=3)(batch)
    expected = sum(
        -whole[t, 0] @ whole[t, 1] + (whole[t, 0] @ whole[t, 2]).relu() for t in range(2)
    )
    assert value(found) == pytest.approx(value(expected) / 2)
    found.backward()
    assert (raw.grad.abs().sum(1) > 0).sum() >= 4  # positives and negatives learn too


def test_weights_multiply_an_anchors_terms() -> None:
    batch = seen()
    weighted = seen(weights=torch.tensor([2.0, 0, 0, 0, 0, 0]))
    s = batch.embeddings @ batch.teacher_vectors.T
    assert value(compared("regression")(weighted)) == pytest.approx(-2 * value(s[0, 0]) / 6)


def test_losses_with_proxies_see_the_student_alone() -> None:
    term = compared("proxy-anchor")
    raw = vectors(0).float()
    assert value(term(seen(raw=raw))) == value(term(seen(raw=raw, teacher=False)))


@pytest.mark.parametrize(
    ("text", "changes", "message"),
    [
        ("lifted-structure", {}, "--symmetric"),
        ("lifted-structure", {"images_per_tuple": 4, "symmetric": True}, "--mining"),
        ("regression", {"symmetric": True}, "its own positive"),
        ("contrastive+", {"symmetric": True}, "its own positive"),
        ("contrastive", {"symmetric": True, "positives": "self"}, "its own positive"),
    ],
)
def test_what_cannot_be_compared(text: str, changes: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        compared(text, **changes)


def test_texts_for_provenance() -> None:
    def text(given: str) -> str:
        return parse_loss(given, with_teacher=True).text

    assert text("regression").startswith("regression:margin=0.5,form=similarity")
    assert text("contrastive+:margin=0.7,weight=2").endswith("weight=2")
    assert text("contrastive+:margin=0.7").startswith("contrastive+:margin=0.7,")
    with pytest.raises(UsageError, match="no setting"):
        text("regression:sigma=1")


def student_loss(text: str) -> Choice:
    return parse_loss(text, with_teacher=True)


def test_which_losses_want_labels() -> None:
    assert not choices.needs_labels(student_loss("regression"), "class", symmetric=False)
    assert not choices.needs_labels(student_loss("info-nce"), "self", symmetric=False)
    assert choices.needs_labels(student_loss("info-nce"), "class", symmetric=False)
    assert choices.needs_labels(student_loss("contrastive+"), "self", symmetric=False)
    assert choices.needs_labels(student_loss("proxy-anchor"), "self", symmetric=False)
