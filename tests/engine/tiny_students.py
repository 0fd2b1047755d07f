"""Runs of a student with a second stream of pseudo-labelled images, small enough for tests."""

from tiny_runs import images, manifest, model

from mltool.commands.objective import Additions, Pairing, build_objective, list_terms
from mltool.components import parse
from mltool.engine.objectives.basis import BasisTerm, SeparationTerm, load_basis
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.samplers import ClassBalanced
from mltool.engine.streams import Stream

STREAM = "unlabeled"


def build_terms(
    basis: str | None,
    loss: str = "contrastive",
    *,
    additions: Additions | None = None,
    classes: int = 5,
    pseudo_classes: int = 4,
    dim: int = 8,
    steps: int = 1000,
) -> Objective:
    """An objective as `train --unlabeled` lists it; without a basis both streams are alike."""
    shared = additions or Additions()

    def list_further(generator) -> dict[str, Term]:
        terms: dict[str, Term] = {}
        selector = None
        if basis is not None:
            choice = parse("bases", basis)
            learned = load_basis(choice, classes=classes, dim=dim, steps=steps)
            terms["basis"] = BasisTerm(learned, name=choice.name)
            terms["basis/pairs"] = SeparationTerm(learned, name=choice.name, stream=STREAM)
            selector = learned.select
        return terms | list_terms(
            [parse("losses", loss)],
            Pairing(distinct=basis is not None),
            shared if basis is None else Additions(),
            classes=pseudo_classes,
            dim=dim,
            generator=generator,
            stream=STREAM,
            selector=selector,
        )

    return build_objective(
        [parse("losses", loss)],
        Pairing(),
        shared,
        model=model(dim=dim),
        classes=classes,
        seed=0,
        further=list_further,
    )


def student(basis: str | None, loss: str = "contrastive", *, memory: int | None = None) -> dict:
    """The settings of `plan` for a student: three epochs of five steps."""
    remembered = MemorySettings(memory, weight=0.5, start=2) if memory else None
    pseudo = manifest(classes=range(5, 9), each=9)
    sampler = ClassBalanced(pseudo.labels, classes_per_batch=4, images_per_class=2, seed=3)
    objective = build_terms(basis, loss, additions=Additions(memory=remembered), steps=30)
    streams = (Stream(STREAM, images(pseudo, model()), sampler),)
    return {"objective": objective, "streams": streams}
