"""The objective of `train` and `distill`: their terms, listed from the options."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mltool import components
from mltool.components import Choice
from mltool.engine.objectives.memory import Memory, MemorySettings, MemoryTerm
from mltool.engine.objectives.mixing import MixedTerm
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.objectives.pair_loss import (
    CandidateSource,
    DeclaredSides,
    PairTerm,
    Selector,
    VectorTerm,
    build_pairs,
    explain_fixed_sides,
    load_miner,
)
from mltool.engine.objectives.teacher_pairs import BatchTuples, TeacherTuples, TeacherVectors
from mltool.engine.objectives.transfer import TransferTerm
from mltool.engine.teachers import Teacher
from mltool.errors import UsageError
from mltool.models.embedder import Embedder
from mltool.models.features import FeatureHooks
from mltool.options.choices import Positives, pairing_of


@dataclass(frozen=True)
class Pairing:
    """Who stands as the candidates of losses that compare the batch.

    They are the student's vectors if `symmetric`, else the teacher's. With `images_per_tuple` each
    anchor has those of its mined tuple alone.
    """

    positives: Positives = "class"
    symmetric: bool = True
    images_per_tuple: int | None = None


@dataclass(frozen=True)
class Additions:
    """What joins every loss on pairs: who chooses among them, and further candidates."""

    miner: Choice | None = None
    memory: MemorySettings | None = None
    mixup: Choice | None = None


@dataclass(frozen=True)
class Lesson:
    """Who teaches: a teacher, hooks at the student, and what transfers may ask for by name."""

    teacher: Teacher
    student_hooks: FeatureHooks | None = None
    context: Mapping[str, object] = field(default_factory=dict)


def build_objective(
    losses: Sequence[Choice],
    pairing: Pairing,
    additions: Additions,
    *,
    model: Embedder,
    classes: int,
    seed: int,
    lesson: Lesson | None = None,
) -> Objective:
    """Build the objective. Raises UsageError for what does not fit together.

    Without a lesson the vectors are normalised by the model, unless a loss wants them raw.
    """
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    terms = list_terms(
        losses,
        pairing,
        additions,
        classes=classes,
        dim=model.spec.dim,
        generator=generator,
        lesson=lesson,
    )
    return Objective(
        terms,
        seed=seed,
        generator=generator,
        normalizes=model.spec.normalize,
        raw=lesson is not None or pairing.images_per_tuple is not None,
        teacher=lesson.teacher if lesson is not None else None,
        features=lesson.student_hooks if lesson is not None else None,
    )


def list_terms(
    losses: Sequence[Choice],
    pairing: Pairing,
    additions: Additions,
    *,
    classes: int,
    dim: int,
    generator: torch.Generator,
    lesson: Lesson | None = None,
) -> dict[str, Term]:
    """List the terms by key: N for the N-th loss, N/memory and N/mixed behind it.

    The memory itself comes last, so that it is filled when all losses were taken.
    """
    _refuse_losses(losses, pairing)
    _refuse_additions(losses, pairing, additions)
    miner, memory = additions.miner, None
    selector = load_miner(miner, dim=dim, generator=generator) if miner is not None else None
    if additions.memory is not None:
        memory = Memory(additions.memory, dim=dim, of_teacher=not pairing.symmetric)
    names = make_distinct([choice.alias or choice.name for choice in losses])
    terms: dict[str, Term] = {}
    for number, (choice, name) in enumerate(zip(losses, names, strict=True)):
        key = str(number)
        if choice.family == "transfers":
            terms[key] = _transfer_term(choice, name, lesson, generator)
        elif choice.declared.takes_vectors:
            terms[key] = VectorTerm(choice, classes=classes, dim=dim, name=name)
        else:
            term = _pair_term(choice, name, pairing, selector, classes=classes, dim=dim)
            terms[key] = term
            terms |= _list_additions(key, term, memory, additions.mixup)
    return terms | ({"memory": memory} if memory is not None else {})


def _transfer_term(
    choice: Choice, name: str, lesson: Lesson | None, generator: torch.Generator
) -> TransferTerm:
    assert lesson is not None
    return TransferTerm(
        choice,
        student=lesson.student_hooks,
        teacher=lesson.teacher.hooks,
        context={**lesson.context, "generator": generator},
        name=name,
    )


def _pair_term(
    choice: Choice,
    name: str,
    pairing: Pairing,
    selector: Selector | None,
    *,
    classes: int,
    dim: int,
) -> PairTerm:
    has_batch_pairs = choice.declared.has_batch_pairs
    return PairTerm(
        choice,
        classes=classes,
        dim=dim,
        source=choose_source(choice, pairing) if has_batch_pairs else DeclaredSides(),
        selector=selector if has_batch_pairs else None,
        name=name,
    )


def choose_source(choice: Choice, pairing: Pairing) -> CandidateSource:
    """Return where the candidates of a loss that compares the batch come from."""
    size, rule = pairing.images_per_tuple, pairing_of(choice, pairing.positives)
    if pairing.symmetric:
        return BatchTuples(size) if size is not None else DeclaredSides()
    if size is not None:
        return TeacherTuples(rule.positives, rule.has_negatives)
    return TeacherVectors(rule.positives, rule.has_negatives)


def _list_additions(
    key: str, term: PairTerm, memory: Memory | None, mixup: Choice | None
) -> dict[str, Term]:
    """List the terms that depend on a pair term. Raises UsageError for what cannot be mixed."""
    terms: dict[str, Term] = {}
    if memory is not None and term.declared.has_batch_pairs:
        source = term.source
        relate = source.relate if isinstance(source, TeacherVectors) else build_pairs
        terms[f"{key}/memory"] = MemoryTerm(term, memory, relate)
    if mixup is not None:
        mixed = MixedTerm(term, components.load("mixups", mixup)())
        if reason := mixed.incompatibility():
            raise UsageError(f"--mixup has no place here: {reason}")
        terms[f"{key}/mixed"] = mixed
    return terms


def make_distinct(names: list[str]) -> list[str]:
    """Number the names that repeat an earlier one."""
    return [f"{n}-{i + 1}" if n in names[:i] else n for i, n in enumerate(names)]


def _refuse_losses(losses: Sequence[Choice], pairing: Pairing) -> None:
    """Raise UsageError for losses whose candidates others cannot stand in for."""
    has_tuples = pairing.images_per_tuple is not None
    for choice in losses:
        if choice.family == "transfers" or not choice.declared.has_batch_pairs:
            continue
        if choice.declared.square and (has_tuples or not pairing.symmetric):
            remedy = "leave out --mining" if has_tuples else "say --symmetric"
            raise UsageError(f"{explain_fixed_sides(choice)}; {remedy}")
        if pairing.symmetric and pairing_of(choice, pairing.positives).positives != "class":
            raise UsageError(
                f"--loss {choice.alias or choice.name}: with --symmetric an image would be its own "
                "positive; use --positives class"
            )


def _refuse_additions(losses: Sequence[Choice], pairing: Pairing, additions: Additions) -> None:
    """Raise UsageError for a miner, a memory or a mixup that the losses have no use for."""
    miner = additions.miner
    paired = [choice for choice in losses if choice.family != "transfers"]
    open_losses = [choice for choice in paired if choice.declared.has_batch_pairs]
    has_choice = [c for c in open_losses if pairing_of(c, pairing.positives).has_negatives]
    if miner is not None and not has_choice:
        raise UsageError(
            f"--miner {miner.name} has nothing to choose from: no loss has batch pairs"
        )
    if miner is not None and miner.declared.square and not pairing.symmetric:
        raise UsageError(
            f"--miner {miner.name} has no place here: it needs a whole batch of the student's "
            "vectors; say --symmetric"
        )
    for option in ("memory", "mixup"):
        if getattr(additions, option) is None:
            continue
        reasons = [_explain_closed(choice) for choice in paired]
        if reason := next(filter(None, reasons), ""):
            raise UsageError(f"--{option} has no place here: {reason}; use another --loss")
        if not paired:
            raise UsageError(f"--{option} has no place here: no --loss compares pairs")
    if additions.memory is not None and not open_losses:
        raise UsageError("--memory has no place here: all candidates are proxies")
    if additions.memory is not None and miner is not None and miner.declared.square:
        raise UsageError(
            f"--memory has no place beside --miner {miner.name}: it needs a whole batch"
        )


def _explain_closed(choice: Choice) -> str:
    """Return why a loss takes no further candidates, or an empty string."""
    if choice.declared.has_batch_pairs and not pairing_of(choice, "class").has_negatives:
        return f"{choice.alias} compares an image with its own vector of the teacher alone"
    return explain_fixed_sides(choice)
