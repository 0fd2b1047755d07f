"""Images as queries: checked first, then embedded by a model in memory and searched for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine.data import Images, plain_view
from mltool.engine.extract import Extraction, embed_rows
from mltool.engine.loading import default_workers
from mltool.files import history
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.models.source import Source, open_model


@dataclass(frozen=True)
class QueryRequest:
    """The options of `mltool search` about the model, by their names there; see its help."""

    model: str
    weights: str | None
    pooling: str | None
    image_size: int | None
    resize: int | None
    keep_aspect: bool
    root: str | None
    batch_size: int
    precision: str
    device: str
    seed: int
    threads: int | None
    workers: int | None


@dataclass(frozen=True, eq=False)
class Queries:
    """Images to be embedded, and what the history of a search has to say of them."""

    declared: Embeddings  # with zeros for vectors, which take no memory
    inputs: tuple[tuple[str, str, str], ...]  # (option, path, digest)
    settings: dict[str, object]
    vectors: Callable[[], np.ndarray]  # decodes and embeds

    def embedded(self) -> Embeddings:
        """The images' embeddings. Raises InputError for one that cannot be read."""
        return replace(self.declared, vectors=self.vectors())


def open_images(texts: Sequence[str], request: QueryRequest) -> Queries:
    """Find the images that `texts` name and the model, and decode none yet.

    Texts are files, folders, lists, or `-` for standard input. Raises UsageError, InputError.
    """
    device = devices.choose(request.device)
    devices.set_threads(request.threads)
    manifest = open_data(texts, root=request.root)
    source = open_model(
        request.model,
        weights=request.weights,
        pooling=request.pooling,
        image_size=request.image_size,
        resize=request.resize,
        keep_aspect=request.keep_aspect,
        seed=request.seed,
    )
    spec = source.model.spec
    precision = devices.precision(request.precision, device, training=False)
    workers = default_workers() if request.workers is None else request.workers
    how = Extraction(
        batch_size=request.batch_size,
        workers=min(workers, len(manifest) // request.batch_size),
        device=device,
        precision=precision,
    )
    images = Images(manifest, spec, plain_view(spec), seed=0)
    vectors = partial(embed_rows, source.model.to(device), images, how)
    digest = manifest.digest()
    given = tuple((_as_option(option), path, of) for option, path, of in source.inputs)
    inputs = (*history.list_inputs("queries", texts, digest), *given)
    settings = {"batch_size": request.batch_size, "precision": precision, **source.settings}
    return Queries(_declared(manifest, source, digest), inputs, settings, vectors)


def _declared(manifest: Manifest, source: Source, digest: str) -> Embeddings:
    spec = source.model.spec
    return Embeddings(
        manifest.names,
        np.broadcast_to(np.float32(0), (len(manifest), spec.dim)),
        manifest.labels,
        manifest.label_names,
        metric=spec.metric,
        normalized=spec.normalize,
        space=source.space,
        teacher_space=spec.teacher_space,
        preprocess=spec.preprocess,
        root=manifest.root,
        history=source.history,
        digest=digest,
    )


def _as_option(name: str) -> str:
    return name if name.startswith("--") else f"--{name}"
