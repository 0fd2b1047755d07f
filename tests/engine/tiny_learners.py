"""Runs of divide and conquer, small enough for tests."""

import dataclasses

import numpy as np
import torch
from tiny_runs import images, manifest, model, plan

from mltool.commands.learners import list_learner_terms
from mltool.commands.objective import Additions, Pairing, build_objective
from mltool.components import parse
from mltool.engine.cluster_sampler import ClustersInTurn, Phases
from mltool.engine.objectives.memory import MemorySettings
from mltool.engine.objectives.objective import Objective
from mltool.engine.samplers import ClassBalanced
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan
from mltool.models.embedder import Embedder

CLUSTERS = np.arange(80) % 3 - (np.arange(80) > 77)  # of three, the last two images in another


def build_learners(
    embedder: Embedder, loss: str, *, miner: str | None = None, memory: int | None = None
) -> Objective:
    """The objective of `train --parts`."""
    additions = Additions(
        miner=parse("miners", miner) if miner else None,
        memory=MemorySettings(memory, weight=0.5, start=2) if memory else None,
    )
    losses = [parse("losses", loss)]
    assert embedder.parts is not None

    def further(generator: torch.Generator) -> dict:
        return list_learner_terms(
            losses,
            additions,
            embedder.parts,
            dim=embedder.spec.dim,
            classes=5,
            seed=0,
            generator=generator,
        )

    return build_objective(
        [], Pairing(), Additions(), model=embedder, classes=5, seed=0, further=further
    )


def divide(
    parts: str,
    clusters: np.ndarray = CLUSTERS,
    *,
    loss: str = "multi-similarity",
    miner: str | None = None,
    memory: int | None = None,
    full_from: int | None = None,
    merge_from: int | None = None,
    p: int = 4,
    k: int = 4,
    **settings: object,
) -> TrainingPlan:
    """The plan of `tiny_runs` with learners: three epochs of five steps."""
    embedder = model(parts=parts)
    embedder.parts.use(int(clusters.max()) + 1)
    of = manifest()
    every = ClassBalanced(of.labels, classes_per_batch=p, images_per_class=k, seed=0)
    sampler = ClustersInTurn(every, of.labels, clusters, phases=Phases(full_from, merge_from))
    base = plan(
        loss=loss,
        p=p,
        k=k,
        objective=build_learners(embedder, loss, miner=miner, memory=memory),
        **settings,
    )
    stream = Stream(MAIN, images(of, embedder), sampler)
    return dataclasses.replace(base, model=embedder, streams=(stream,))
