"""Runs of heads on cached vectors, small enough for tests."""

import dataclasses
from pathlib import Path

import numpy as np
from tiny_runs import plan

from mltool.datasets import open_data
from mltool.engine import sources
from mltool.engine.mining import MiningSettings, Tuples, TupleSampler
from mltool.engine.samplers import ClassBalanced, Sampler
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan, Validation
from mltool.engine.vectors import Vectors
from mltool.files import embeddings
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder, build_head
from mltool.models.spec import ModelSpec

COUNT, DIM = 80, 6


def write_vectors(folder: Path) -> list[Path]:
    """Two files of one list of 5 classes x 16 vectors, half of them in float16."""
    generator = np.random.default_rng(0)
    labels = np.arange(COUNT) % 5
    vectors = (generator.normal(size=(COUNT, DIM)) + 2 * np.eye(5, DIM)[labels]).astype(np.float32)
    whole = Embeddings(
        np.array([b"%03d" % n for n in range(COUNT)]),
        vectors,
        [f"class{c}" for c in labels],
        columns={"weight": np.linspace(0.5, 1.5, COUNT)},
        space="s",
    )
    files = [folder / "one.h5", folder / "two.h5"]
    embeddings.write(files[0], whole.take(np.arange(50)))
    half = whole.take(np.arange(50, COUNT))
    half = dataclasses.replace(half, vectors=half.vectors.astype(np.float16))
    embeddings.write(files[1], half)
    return files


def read(paths: list[Path], **settings: object) -> Manifest:
    return open_data([str(path) for path in paths], of_vectors=True, **settings)


def make_head(dim: int = 8) -> Embedder:
    spec = ModelSpec.describe_head(DIM, projection="linear-bn", dim=dim, space="s", metric="cosine")
    return build_head(spec, seed=0)


def make_plan(paths: list[Path], kind: str, **settings: object) -> TrainingPlan:
    """A plan whose stream is of vectors, in batches or in mined tuples."""
    base = plan(**{"epochs": 3, "loss": "contrastive"} | settings)
    manifest = read(paths)
    sampler: Sampler
    if kind == "mined":
        tuples = Tuples(manifest.labels, MiningSettings("hard", 60, 20, 2), seed=1)
        sampler = TupleSampler(tuples, per_batch=4, full_tuples=True)
    else:
        sampler = ClassBalanced(manifest.labels, classes_per_batch=4, images_per_class=4, seed=0)
    held_out = Validation(sources.open_test(manifest, make_head().spec), "map@r", 16, "fp32")
    return dataclasses.replace(
        base,
        model=make_head(),
        streams=(Stream(MAIN, Vectors(manifest), sampler),),
        validation=held_out,
    )
