"""Divide and conquer in `train`: clusters of the images, and a learner with its terms for each.

Sanakoyeu et al., Divide and Conquer the Embedding Space for Metric Learning, CVPR 2019.
"""

import dataclasses
import logging
from collections.abc import Sequence

import numpy as np
import torch
from torch import Generator

from mltool import components, distributed
from mltool.commands.objective import Additions, Pairing, choose_additions, list_terms
from mltool.commands.training_options import TrainingOptions
from mltool.components import Choice
from mltool.datasets import open_data
from mltool.engine import optim
from mltool.engine.cluster_sampler import ClustersInTurn, Phases
from mltool.engine.loop import Run
from mltool.engine.objectives.objective import Objective, Term
from mltool.engine.objectives.parts import OrthogonalityTerm, as_turns
from mltool.engine.samplers import ClassBalanced
from mltool.engine.streams import Stream
from mltool.errors import InputError, escape
from mltool.files import history
from mltool.files.manifest import CLUSTER, Manifest
from mltool.files.names import examples, find
from mltool.models import learners
from mltool.models.embedder import Embedder
from mltool.models.learners import Masks, Parts
from mltool.options.group import list_recorded

logger = logging.getLogger(__name__)

WHOLE = "whole"  # of names and keys: the terms of the whole vector


def add_clusters(options: TrainingOptions, manifest: Manifest) -> Manifest:
    """Return the list with the clusters of --clusters as its column, joined by name; -1 = none.

    Raises InputError for a list without clusters, and for one that shares no name.
    """
    text = options.parts.clusters
    if text is None:
        return manifest
    split, source = open_data([text]), f"--clusters {escape(text)}"
    clusters = split.columns.get(CLUSTER)
    if clusters is None or not (clusters >= 0).any():
        raise InputError(f"{source}: no image has a cluster; make the list by cluster-split")
    rows = find(split.names, manifest.names)
    if (rows < 0).all():
        raise InputError(
            f"{source} shares no name with DATA ({examples(split.names[:1])} there, "
            f"{examples(manifest.names[:1])} here); split the clusters of these images"
        )
    if missing := int((rows < 0).sum()):
        logger.warning("%d of %d images are not in %s", missing, len(manifest), source)
    columns = manifest.columns | {CLUSTER: np.where(rows < 0, -1, clusters[rows])}
    return dataclasses.replace(manifest, columns=columns)


def choose_parts(options: TrainingOptions, manifest: Manifest) -> Choice | None:
    """Return the parts asked for with their number, which is that of the clusters unless said."""
    if options.parts.parts is None:
        return None
    choice = components.parse("parts", options.parts.parts)
    if choice["count"] is not None or options.parts.clusters is None:
        return choice
    count = int(manifest.columns[CLUSTER].max()) + 1
    settings = tuple((k, count if k == "count" else v) for k, v in choice.settings)
    return dataclasses.replace(choice, settings=settings)


def list_learner_terms(
    losses: Sequence[Choice],
    additions: Additions,
    parts: Parts,
    *,
    dim: int,
    classes: int,
    seed: int,
    generator: Generator,
    from_epoch: int = 0,
) -> dict[str, Term]:
    """List the terms of every learner, and those of the whole vector, of length `dim`.

    All exist from the start, whoever has a cluster. The first learner's proxies and those of the
    whole vector start as they would without parts. `from_epoch` is the first epoch of the run.
    """
    terms: dict[str, Term] = {}
    owners = [(f"part{number}", number, parts.part_dim) for number in range(parts.count)]
    for owner, learner, length in (*owners, (WHOLE, None, dim)):
        if learner in (0, None):
            torch.manual_seed(seed)
        listed = list_terms(
            losses,
            Pairing(),
            additions,
            classes=classes,
            dim=length,
            generator=generator,
            owner=owner,
        )
        hold_until = 0 if learner is None else from_epoch + parts.freeze_epochs
        terms |= as_turns(listed, learner, hold_until=hold_until)
    if isinstance(parts, Masks) and parts.orthogonality:
        terms["orthogonality"] = OrthogonalityTerm(parts)
    return terms


class Learners:
    """The learners of a run with --parts, and who has which cluster; `every` samples all images."""

    def __init__(
        self,
        options: TrainingOptions,
        choice: Choice,
        manifest: Manifest,
        model: Embedder,
        *,
        every: ClassBalanced,
    ) -> None:
        assert model.parts is not None
        self.options, self.choice, self.manifest = options, choice, manifest
        self.parts, self.dim, self.every = model.parts, model.spec.dim, every
        self.sampler = self._sample()
        self.count = int(self.parts.in_use)
        if self.clusters is not None:
            source = escape(options.parts.clusters or "")
            clusters = int(self.clusters.max()) + 1
            self.count = learners.count_learners(self.parts, clusters, source=source)

    @property
    def clusters(self) -> np.ndarray | None:
        """The cluster [N] of every image, -1 = none; None without --clusters."""
        return None if self.options.parts.clusters is None else self.manifest.columns[CLUSTER]

    def _sample(self) -> ClassBalanced | ClustersInTurn:
        """Return the sampler of the run."""
        if self.clusters is None:
            return self.every
        return ClustersInTurn(
            self.every,
            self.manifest.labels,
            self.clusters,
            phases=Phases(self.options.parts.full_from, self.options.parts.merge_from),
            small_classes=self.options.batches.small_classes,
            processes=distributed.world(),
        )

    def list_terms(self, generator: Generator) -> dict[str, Term]:
        """List the terms of all learners, then those of the whole vector."""
        return list_learner_terms(
            self.options.losses,
            choose_additions(self.options.objective, epoch_steps=self.every.steps),
            self.parts,
            dim=self.dim,
            classes=len(self.manifest.label_names),
            seed=self.options.execution.seed,
            generator=generator,
            from_epoch=self.options.optimisation.from_epoch,
        )

    def adapt(self, run: Run) -> None:
        """Give every cluster its learner; twice as many as before double the learners."""
        before = int(self.parts.in_use)
        if self.count > before > 0:
            changed = learners.double(run.model, before)
            changed = {f"model.{name}" for name in changed}
            changed |= {f"objective.{name}" for name in learners.double(run.objective, before)}
            if run.ema is not None:
                learners.double_values(run.ema.averages, before)
            optim.clear_moments(run.optimizer, changed)
            logger.info("%d learners become %d, two by two alike", before, self.count)
        if self.count != before:
            self.parts.use(self.count)

    def report(self) -> None:
        """Log who learns what."""
        count, dim = self.parts.count, self.parts.part_dim
        if self.clusters is None or not isinstance(self.sampler, ClustersInTurn):
            logger.info("%s: %d of %d-d; the whole vector learns", self.choice.name, count, dim)
            return
        sizes = np.bincount(self.clusters[self.clusters >= 0])
        sizes, aside = sizes[sizes > 0], int((self.clusters < 0).sum())
        logger.info(
            "%s: %d of %d-d, %d with a cluster of %d to %d images; %d images have no cluster",
            *(self.choice.name, count, dim, len(sizes), sizes.min(), sizes.max(), aside),
        )
        if small := self.sampler.small_classes:
            k = self.every.images_per_class
            logger.warning("%d classes have fewer than %d images in their cluster", small, k)

    def open_streams(self, model: Embedder, objective: Objective) -> list[Stream]:
        """Return no stream: one loader serves all learners."""
        return []

    @property
    def rates(self) -> dict[str, float]:
        """The rates that the parts name themselves, by group."""
        rate = dict(self.choice.settings).get("lr")
        return {"masks": rate} if isinstance(rate, float) else {}

    def record_settings(self) -> dict[str, object]:
        """Return what a record says of the learners."""
        return list_recorded(self.options.parts) | {"parts": self.choice.text}

    def record_counts(self) -> dict[str, int]:
        """Return the number of clusters, and of images without one."""
        if self.clusters is None:
            return {}
        clusters = len(np.unique(self.clusters[self.clusters >= 0]))
        return {"clusters": clusters, "set_aside": int((self.clusters < 0).sum())}

    def list_inputs(self) -> list[tuple[str, str, str]]:
        """Return the list of clusters as an input of a record."""
        text = self.options.parts.clusters
        return [] if text is None else [("--clusters", text, history.digest_of_file(text))]

    def read_histories(self) -> list[history.History]:
        """Return the history of the list of clusters."""
        return history.read_all([self.options.parts.clusters])
