"""The objective of `train` and `distill`: their terms, listed from the options."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch

from mltool import components
from mltool.commands import training_setup
from mltool.commands.training_options import TrainingOptions
from mltool.components import Choice
from mltool.engine.objectives.memory import Memory, MemorySettings, MemoryTerm
from mltool.engine.objectives.mixing import MixedTerm
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.objectives.pair_loss import (
    CandidateSource,
    DeclaredSides,
    DistinctImages,
    PairTerm,
    Selector,
    VectorTerm,
    build_pairs,
    load_miner,
)
from mltool.engine.objectives.teacher_pairs import BatchTuples, TeacherTuples, TeacherVectors
from mltool.engine.objectives.transfer import TransferTerm
from mltool.engine.streams import MAIN
from mltool.engine.teachers import Teacher
from mltool.errors import UsageError
from mltool.models import stages
from mltool.models.embedder import Embedder
from mltool.models.features import FeatureHooks
from mltool.options.choices import Positives, choose_pairing
from mltool.options.objective import ObjectiveOptions


@dataclass(frozen=True)
class Pairing:
    """Who stands as the candidates of losses that compare the batch.

    They are the student's vectors if `symmetric`, else the teacher's. With `images_per_tuple` each
    anchor has those of its mined tuple alone. With `distinct` no image pairs with its repetition in
    the batch.
    """

    positives: Positives = "class"
    symmetric: bool = True
    images_per_tuple: int | None = None
    distinct: bool = False


@dataclass(frozen=True)
class Additions:
    """What joins every loss on pairs: who chooses among them, and further candidates."""

    miner: Choice | None = None
    memory: MemorySettings | None = None
    mixup: Choice | None = None


def choose_additions(options: ObjectiveOptions, *, epoch_steps: int) -> Additions:
    """Return what the options ask for; a memory begins with the second epoch by default."""
    memory = None
    if options.memory is not None:
        weight = 1.0 if options.memory_weight is None else options.memory_weight
        start = epoch_steps if options.memory_start is None else options.memory_start
        memory = MemorySettings(options.memory, weight=weight, start=start)
    return Additions(
        miner=components.parse("miners", options.miner) if options.miner else None,
        memory=memory,
        mixup=components.parse("mixups", options.mixup) if options.mixup else None,
    )


def record_additions(options: ObjectiveOptions, *, epoch_steps: int) -> dict[str, object]:
    """Return what a record says of what was left open in them, and components in full."""
    additions = choose_additions(options, epoch_steps=epoch_steps)
    settings: dict[str, object] = {}
    if additions.miner is not None:
        settings["miner"] = additions.miner.text
    if additions.memory is not None:
        settings["memory"] = additions.memory.size
        settings["memory_weight"] = additions.memory.weight
        settings["memory_start"] = additions.memory.start
    if additions.mixup is not None:
        settings["mixup"] = additions.mixup.text
    return settings


@dataclass(frozen=True)
class Lesson:
    """Who teaches: a teacher, hooks at the student, and what transfers may ask for by name."""

    teacher: Teacher
    student_hooks: FeatureHooks | None = None
    context: Mapping[str, object] = field(default_factory=dict)


FurtherTerms = Callable[[torch.Generator], Mapping[str, Term]]  # from the source of all draws


def build_objective(
    losses: Sequence[Choice],
    pairing: Pairing,
    additions: Additions,
    *,
    model: Embedder,
    classes: int,
    seed: int,
    lesson: Lesson | None = None,
    further: FurtherTerms | None = None,
) -> Objective:
    """Build the objective. Raises UsageError for mixed examples without a gradient.

    Without a lesson the vectors are normalised by the model, unless a loss wants them raw.
    `further` lists terms that a command adds behind those of its losses, as on a second stream.
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
        terms | dict(further(generator) if further is not None else {}),
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
    stream: str = MAIN,
    selector: Selector | None = None,
    owner: str = "",
) -> dict[str, Term]:
    """List the terms by key: N for the N-th loss, N/memory and N/mixed behind it.

    The memory itself comes last, so that it is filled when all losses were taken. Keys and names
    of terms on another stream than `main` begin with its name, those of one learner of several
    with `owner`. `selector` chooses among the pairs where there is no miner.
    """
    prefix = "".join(f"{each}/" for each in (stream, owner) if each not in ("", MAIN))
    miner, memory = additions.miner, None
    if miner is not None:
        selector = load_miner(miner, dim=dim, generator=generator)
    if additions.memory is not None:
        of_teacher = not pairing.symmetric
        memory = Memory(additions.memory, dim=dim, of_teacher=of_teacher, stream=stream)
    names = make_distinct([prefix + (choice.alias or choice.name) for choice in losses])
    terms: dict[str, Term] = {}
    for number, (choice, name) in enumerate(zip(losses, names, strict=True)):
        key = f"{prefix}{number}"
        if choice.family == "transfers":
            terms[key] = _transfer_term(choice, name, lesson, generator)
        elif choice.declared.takes_vectors:
            terms[key] = VectorTerm(choice, classes=classes, dim=dim, name=name, stream=stream)
        else:
            term = _pair_term(
                choice, name, pairing, selector, classes=classes, dim=dim, stream=stream
            )
            terms[key] = term
            terms |= _list_additions(key, term, memory, additions.mixup)
    return terms | ({f"{prefix}memory": memory} if memory is not None else {})


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
    stream: str,
) -> PairTerm:
    has_batch_pairs = choice.declared.has_batch_pairs
    return PairTerm(
        choice,
        classes=classes,
        dim=dim,
        source=choose_source(choice, pairing) if has_batch_pairs else DeclaredSides(),
        selector=selector if has_batch_pairs else None,
        name=name,
        stream=stream,
    )


def choose_source(choice: Choice, pairing: Pairing) -> CandidateSource:
    """Return where the candidates of a loss that compares the batch come from."""
    size, rule = pairing.images_per_tuple, choose_pairing(choice, pairing.positives)
    if pairing.distinct:
        return DistinctImages()
    if pairing.symmetric:
        return BatchTuples(size) if size is not None else DeclaredSides()
    if size is not None:
        return TeacherTuples(rule.positives, rule.has_negatives)
    return TeacherVectors(rule.positives, rule.has_negatives)


def _list_additions(
    key: str, term: PairTerm, memory: Memory | None, mixup: Choice | None
) -> dict[str, Term]:
    """List the terms that depend on a pair term. Raises UsageError where mixing teaches nothing."""
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


def refuse_stage(objective: Objective, options: TrainingOptions, model: Embedder) -> None:
    """Raise UsageError where the stage at which examples are mixed does not fit model or images."""
    if objective.stage is not None:
        stages.check(model.backbone, objective.stage)
        training_setup.refuse_unequal(options, model, maps=f"--mixup {options.objective.mixup}")
