"""The second stream of `train`: images with pseudo-labels, and the terms that learn from them.

Pseudo-labels are a label space of their own: they are never compared with classes, and losses with
proxies have other proxies for them. Of the further columns of such a list training reads those that
it reads of every list (`weight`, crop boxes), not `confidence` or `truth`.
"""

import dataclasses
import logging

import numpy as np
from torch import Generator

from mltool import components, distributed
from mltool.commands import heads, training_data, training_setup
from mltool.commands.objective import Additions, Pairing, choose_additions, list_terms
from mltool.commands.training_options import TrainingOptions
from mltool.components import Choice
from mltool.datasets import open_data
from mltool.engine.loop import Run
from mltool.engine.objectives.basis import BasisTerm, SeparationTerm, load_basis
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.objectives.pair_loss import Selector
from mltool.engine.samplers import ClassBalanced
from mltool.engine.streams import Stream
from mltool.engine.vectors import Vectors
from mltool.errors import InputError, escape
from mltool.files import history
from mltool.files.lists import vector_lists
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.options.choices import parse_losses

logger = logging.getLogger(__name__)

UNLABELED = "unlabeled"  # the stream


def read_list(options: TrainingOptions, labelled: Manifest) -> Manifest | None:
    """Return the images with pseudo-labels, None without --unlabeled.

    Raises InputError for a list without pseudo-labels, and for names that `labelled` has too.
    """
    texts = options.unlabeled.unlabeled
    if texts is None:
        return None
    manifest = open_data(
        texts,
        labels=options.unlabeled.unlabeled_labels,
        need_split=True,
        of_vectors=heads.learns_head(options.model),
    )
    listed, has_label = " ".join(map(escape, texts)), manifest.labels >= 0
    if not has_label.any():
        raise InputError(
            f"--unlabeled {listed}: no image has a pseudo-label; run `mltool pseudolabel` first"
        )
    both = np.intersect1d(labelled.names, manifest.names)
    if len(both):
        raise InputError(
            f"{len(both):,} names stand in DATA and in --unlabeled {listed} (the first is "
            f"{escape(both[0].decode())}); take these images out of one of the lists"
        )
    if not has_label.all():
        left_out = int((~has_label).sum())
        logger.warning("%s: %d images without a pseudo-label are left out", listed, left_out)
    return manifest.take(has_label).compact()


def describe_maker(steps: history.History) -> str:
    """Describe the model whose vectors pseudo-labels come from, by the history of their list."""
    commands = [step["command"] for step in steps]
    if "pseudolabel" not in commands:
        return "the list does not say which model its pseudo-labels come from"
    last = len(commands) - 1 - commands[::-1].index("pseudolabel")
    inputs = [item for step in steps[:last] for item in history.inputs_of(step)]
    models = [item for item in inputs if item.get("option") == "model"]
    if not models:
        return "the vectors behind the pseudo-labels do not say which model made them"
    name, digest = models[-1].get("name"), str(models[-1].get("digest"))
    return f"pseudo-labels from vectors of {name} ({digest[:12]})"


class SecondStream:
    """Images with pseudo-labels beside the labelled ones, whose sampler is `first`.

    A batch is P x K by pseudo-label, as large as one of `first` unless the options say otherwise,
    and has its K where they say P or K. Raises InputError for a list smaller than its batch.
    """

    def __init__(
        self, options: TrainingOptions, manifest: Manifest, *, first: ClassBalanced
    ) -> None:
        self.options, self.manifest, self.first = options, manifest, first
        has_shape = options.batches.classes_per_batch or options.batches.images_per_class
        batches = dataclasses.replace(
            options.batches,
            batch_size=options.unlabeled.unlabeled_batch_size or first.size // distributed.world(),
            classes_per_batch=None,
            images_per_class=first.images_per_class if has_shape else None,
        )
        changed = dataclasses.replace(options, batches=batches)
        self.sampler = training_setup.class_balanced(changed, manifest)
        _refuse_fewer(first, "labelled", "--batch-size")
        _refuse_fewer(self.sampler, "unlabelled", "--unlabeled-batch-size")

    @property
    def basis(self) -> Choice | None:
        """The basis that chooses among the pairs, if one does."""
        text = self.options.unlabeled.basis
        return components.parse("bases", text) if text is not None else None

    @property
    def losses(self) -> list[Choice]:
        """The losses of this stream: its own, or those of the first."""
        return parse_losses(self.options.unlabeled.unlabeled_loss or self.options.objective.loss)

    def list_terms(self, generator: Generator, *, classes: int, dim: int) -> dict[str, Term]:
        """List the terms of the basis, which learns `classes`, and those on this stream.

        Without a basis the stream has the miner, the memory and the mixed examples of the first.
        """
        terms: dict[str, Term] = {}
        selector: Selector | None = None
        additions = choose_additions(self.options.objective, epoch_steps=self.first.steps)
        if self.basis is not None:
            steps = self.first.steps * self.options.optimisation.epochs
            name, additions = self.basis.name, Additions()
            basis = load_basis(self.basis, classes=classes, dim=dim, steps=steps)
            terms["basis"] = BasisTerm(basis, name=name)
            terms["basis/pairs"] = SeparationTerm(basis, name=name, stream=UNLABELED)
            selector = basis.select
        return terms | list_terms(
            self.losses,
            Pairing(distinct=self.basis is not None),
            additions,
            classes=len(self.manifest.label_names),
            dim=dim,
            generator=generator,
            stream=UNLABELED,
            selector=selector,
        )

    @property
    def rates(self) -> dict[str, float]:
        """No rates: those of the options hold."""
        return {}

    def adapt(self, run: Run) -> None:
        """Change nothing: a student goes on with all that it has."""

    def open_streams(self, model: Embedder, objective: Objective) -> list[Stream]:
        """Open the images. Raises InputError for vectors that a head does not take."""
        columns = objective.columns(UNLABELED)
        source = training_data.open_training(self.options, model, self.manifest, columns)
        if isinstance(source, Vectors):
            heads.check_input(model.spec, source.stored, head="the head")
        return [Stream(UNLABELED, source, self.sampler)]

    def report(self) -> None:
        """Log the images, and where their pseudo-labels come from."""
        shape = self.sampler.summary()
        logger.info("%s: %s, in steps of %s", UNLABELED, self.manifest.summary(), shape)
        logger.info(describe_maker(history.merge(*self.read_histories())))

    def record_settings(self) -> dict[str, object]:
        """Return what a record says of this stream, components in full."""
        size = self.sampler.size // distributed.world()
        settings: dict[str, object] = {"unlabeled_batch_size": size}
        if self.basis is not None:
            settings["basis"] = self.basis.text
        if self.options.unlabeled.unlabeled_loss:
            settings["unlabeled_loss"] = [loss.text for loss in self.losses]
        return settings

    def record_counts(self) -> dict[str, int]:
        """Return the images and pseudo-classes of this stream."""
        return {"unlabeled": len(self.manifest), "pseudo_classes": len(self.manifest.label_names)}

    def list_inputs(self) -> list[tuple[str, str, str]]:
        """Return the lists of this stream as inputs of a record."""
        texts, digest = self.options.unlabeled.unlabeled or [], self.manifest.digest()
        labels = self.options.unlabeled.unlabeled_labels
        inputs = history.list_inputs("--unlabeled-labels", [labels], digest) if labels else []
        if heads.learns_head(self.options.model):
            return [*vector_lists.list_inputs("--unlabeled", texts), *inputs]
        return [*history.list_inputs("--unlabeled", texts, digest), *inputs]

    def read_histories(self) -> list[history.History]:
        """Return the histories of the lists of this stream."""
        texts = self.options.unlabeled.unlabeled or []
        of_labels = history.read_all([self.options.unlabeled.unlabeled_labels])
        if heads.learns_head(self.options.model):
            return [*vector_lists.read_histories(texts), *of_labels]
        return [*history.read_all(texts), *of_labels]


def _refuse_fewer(sampler: ClassBalanced, kind: str, option: str) -> None:
    """Raise InputError for a list with fewer images than a batch."""
    if sampler.images < sampler.size:
        raise InputError(
            f"{sampler.images} {kind} images are fewer than a batch of {sampler.size}; lower "
            f"{option}"
        )
