"""`mltool embed` as a library call: a model and images in, a file of vectors out."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mltool import components
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine.data import Augmentation, Images, plain_view
from mltool.engine.extract import Extraction, embed_blocks
from mltool.engine.loading import default_workers
from mltool.engine.signals import watch
from mltool.errors import Interrupted, SkippedInputs, UsageError
from mltool.files import atomic, canonical_json, history
from mltool.files.embeddings_writer import PARTIAL, EmbeddingsWriter, discard
from mltool.files.locations import path_column
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.models.source import Source, open_model
from mltool.models.spec import ModelSpec
from mltool.progress import Progress

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EmbedRequest:
    """The options of `mltool embed`, by their names there; see its help."""

    model: str
    data: list[str]
    output: str
    weights: str | None
    pooling: str | None
    penultimate: bool
    dtype: str
    shard: str
    views: int
    augment: str
    image_size: int | None
    resize: int | None
    keep_aspect: bool
    split: str | None
    classes: str | None
    labels: str | None
    limit: int | None
    root: str | None
    on_bad_image: str
    batch_size: int
    precision: str
    device: str
    seed: int
    threads: int | None
    workers: int | None
    resume: bool
    dry_run: bool


class Penultimate(nn.Module):
    """A model without its projection: the pooled features."""

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec

    def forward(self, images: Tensor) -> Tensor:
        """Pooled features [B, C]."""
        return self.model.penultimate(images)


def run(request: EmbedRequest) -> None:
    """Embed as requested; the file appears under `request.output` when it is finished.

    Raises Interrupted when a signal came (the partial file is kept), SkippedInputs at the end
    when images were left out, and InputError, NumericError and ResourceError.
    """
    number, shards = parse_shard(request.shard)
    components.parse("augmentations", request.augment)
    device = devices.choose(request.device)
    devices.set_threads(request.threads)
    manifest = open_data(
        request.data,
        split=request.split,
        classes=request.classes,
        limit=request.limit,
        labels=request.labels,
        root=request.root,
        need_split=False,
    )
    edges = np.linspace(0, len(manifest), shards + 1).round().astype(int)
    manifest = manifest.take(np.arange(edges[number], edges[number + 1]))
    source = open_model(
        request.model,
        weights=request.weights,
        pooling=request.pooling,
        image_size=request.image_size,
        resize=request.resize,
        seed=request.seed,
        keep_aspect=request.keep_aspect,
    )
    precision = devices.precision(request.precision, device, training=False)
    dim = _dim(source.model, request)
    logger.info("embed: %s; %d-d, %s, %s", manifest.summary(), dim, precision, device)
    if request.dry_run:
        columns = request.views * dim
        size = len(manifest) * columns * np.dtype(request.dtype).itemsize
        logger.info(
            "would write %s: %d x %d, %.1f MB", request.output, len(manifest), columns, size / 1e6
        )
        return
    atomic.refuse_inputs(request.output, [request.model, request.weights, *request.data])
    with atomic.claim(request.output):
        skipped = _write(request, manifest, source, device, precision)
    if skipped and request.on_bad_image == "skip":
        raise SkippedInputs(f"{skipped} images could not be read and were left out")


def parse_shard(text: str) -> tuple[int, int]:
    """`I/N` as (I, N). Raises UsageError unless 0 <= I < N."""
    first, _, second = text.partition("/")
    if first.isdecimal() and second.isdecimal() and int(first) < int(second):
        return int(first), int(second)
    raise UsageError(f"--shard {text}: write I/N with I from 0 to N - 1, as in 0/4")


def _write(
    request: EmbedRequest, manifest: Manifest, source: Source, device: torch.device, precision: str
) -> int:
    """Write the file; returns how many images were skipped."""
    model: nn.Module = Penultimate(source.model) if request.penultimate else source.model
    model = model.to(device).to(memory_format=torch.channels_last)
    spec = source.model.spec
    steps = _history(request, manifest, source, precision)
    logger.debug("settings: %s", steps[-1]["settings"])
    if request.resume and _made_by(request.output, steps):
        logger.info("%s is finished already", request.output)
        if _made_by(request.output + PARTIAL, steps):
            discard(request.output)  # killed between the last two steps of finishing
        return 0
    images = Images(
        manifest,
        spec,
        _view(request, spec),
        seed=request.seed,
        skip_bad=request.on_bad_image != "error",
    )
    folder = str(Path(request.output).absolute().parent)
    writer = EmbeddingsWriter(
        request.output,
        names=manifest.names,
        dim=request.views * _dim(source.model, request),
        dtype=request.dtype,
        labels=manifest.labels,
        label_names=manifest.label_names,
        columns=manifest.columns | path_column(manifest.names, manifest.paths, folder),
        metric=spec.metric,
        normalized=spec.normalize and not request.penultimate and request.dtype == "float32",
        space=f"{source.space}/penultimate" if request.penultimate else source.space,
        teacher_space="" if request.penultimate else spec.teacher_space,
        views=request.views,
        preprocess=_preprocess(request, spec),
        root=manifest.root,
        history=steps,
        resume=request.resume,
    )
    total = len(manifest)
    with writer, watch() as stop, Progress("embed", total, start=writer.rows_done) as bar:
        if writer.rows_done:
            logger.info("going on after %d of %d images", writer.rows_done, total)
        how = Extraction(
            batch_size=max(1, request.batch_size // request.views),
            workers=default_workers() if request.workers is None else request.workers,
            device=device,
            precision=precision,
        )
        rows = range(writer.rows_done, total)
        for block in embed_blocks(model, images, rows, how, views=request.views):
            for reason in block.failures:
                logger.warning("left out: %s", reason)
            writer.append(block.vectors, valid=block.kept)
            bar.update(writer.rows_done)
            if stop.requested and writer.rows_done < total:
                raise Interrupted(
                    f"stopped by a signal after {writer.rows_done} of {total} images; "
                    f"go on with --resume"
                )
        skipped = int(writer.skip_mask().sum())
        digest = writer.finish()
    logger.info("wrote %s: %d images (digest %s)", request.output, total - skipped, digest[:12])
    return skipped


def _view(request: EmbedRequest, spec: ModelSpec) -> Augmentation:
    """One view is that of the test; several are what training would draw."""
    if request.views == 1:
        return plain_view(spec)
    return components.load("augmentations", request.augment, size=spec.crop)


def _preprocess(request: EmbedRequest, spec: ModelSpec) -> str:
    """What was done to the pixels; of several views also what a student must do to see them."""
    if request.views == 1:
        return spec.preprocess
    augment = components.parse("augmentations", request.augment).text
    return canonical_json.to_json(
        json.loads(spec.preprocess) | {"augment": augment, "seed": request.seed}
    )


def _made_by(path: str, steps: history.History) -> bool:
    if not Path(path).is_file():
        return False
    found = history.read(path)
    return bool(found) and canonical_json.digest(found[-1]) == canonical_json.digest(steps[-1])


def _dim(model: Embedder, request: EmbedRequest) -> int:
    """The length of a vector, asked of the model itself."""
    if not request.penultimate:
        return model.spec.dim
    blank = torch.zeros(1, 3, model.spec.crop, model.spec.crop, device=model.mean.device)
    with torch.inference_mode():
        return model.eval().penultimate(blank).shape[1]


def _history(
    request: EmbedRequest, manifest: Manifest, source: Source, precision: str
) -> history.History:
    digest = manifest.digest()
    inputs = [*source.inputs, *history.list_inputs("data", request.data, digest)]
    if request.labels:
        inputs += history.list_inputs("--labels", [request.labels], digest)
    kept = ("penultimate", "dtype", "shard", "split", "classes", "limit", "on_bad_image")
    views: dict[str, object] = {}
    if request.views > 1:
        augment = components.parse("augmentations", request.augment).text
        views = {"views": request.views, "augment": augment, "seed": request.seed}
    settings = {
        **source.settings,
        **{key: getattr(request, key) for key in kept},
        **views,
        "batch_size": request.batch_size,
        "precision": precision,
    }
    step = history.record(
        "embed", inputs=inputs, settings=settings, counts={"images": len(manifest)}
    )
    before = history.read_all([*request.data, request.labels])
    return history.extend(source.history, *before, record=step)
