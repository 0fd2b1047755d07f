"""Images as queries: checked first, then embedded by a model in memory and searched for."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from mltool.commands import heads
from mltool.commands.embed import open_by_options
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine.data import Images, plain_view
from mltool.engine.extract import Extraction, embed_rows
from mltool.engine.loading import default_workers
from mltool.errors import UsageError
from mltool.files import history
from mltool.files.embeddings import Embeddings
from mltool.files.manifest import Manifest
from mltool.models.source import Source
from mltool.options.model import SourceOptions
from mltool.options.run import InferenceOptions


@dataclass(frozen=True, eq=False)
class Queries:
    """Images to be embedded, and what the history of a search has to say of them."""

    declared: Embeddings  # with zeros for vectors, which take no memory
    inputs: tuple[tuple[str, str, str], ...]  # (option, path, digest)
    settings: dict[str, object]
    vectors: Callable[[], np.ndarray]  # decodes and embeds

    def embed(self) -> Embeddings:
        """Return the embeddings of the images. Raises InputError for one that cannot be read."""
        return replace(self.declared, vectors=self.vectors())


def open_images(
    texts: Sequence[str],
    model: str,
    *,
    root: str | None,
    source: SourceOptions,
    execution: InferenceOptions,
) -> Queries:
    """Find the images that `texts` name and the model, and decode none yet.

    Texts are files, folders, lists, or `-` for standard input. Raises UsageError, InputError.
    """
    if heads.is_head(model):
        raise UsageError(
            f"{model} takes cached vectors, not images: embed the images with the model whose "
            f"vectors it takes, apply it with `mltool embed {model} VECTORS.h5`, and search for "
            "the vectors that it gives, without --model"
        )
    device = devices.choose(execution.device)
    devices.set_threads(execution.threads)
    manifest = open_data(texts, root=root)
    opened = open_by_options(model, source, seed=execution.seed)
    spec = opened.model.spec
    precision = devices.precision(execution.precision, device, training=False)
    workers = default_workers() if execution.workers is None else execution.workers
    how = Extraction(
        batch_size=execution.batch_size,
        workers=min(workers, len(manifest) // execution.batch_size),
        device=device,
        precision=precision,
    )
    images = Images(manifest, spec, plain_view(spec), seed=0)
    vectors = partial(embed_rows, opened.model.to(device), images, how)
    digest = manifest.digest()
    of_model = tuple((_as_option(option), path, of) for option, path, of in opened.inputs)
    inputs = (*history.list_inputs("queries", texts, digest), *of_model)
    settings = {"batch_size": execution.batch_size, "precision": precision, **opened.settings}
    return Queries(_describe(manifest, opened, digest), inputs, settings, vectors)


def _describe(manifest: Manifest, source: Source, digest: str) -> Embeddings:
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
