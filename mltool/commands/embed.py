"""The work of `mltool embed`: a model and images in, a file of vectors out."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from mltool import components
from mltool.commands import heads
from mltool.commands.selected_data import open_selected
from mltool.engine import device as devices
from mltool.engine.data import Augmentation, Images, plain_view
from mltool.engine.extract import Extraction, embed_blocks
from mltool.engine.loading import default_workers
from mltool.engine.signals import watch
from mltool.engine.vectors import Vectors
from mltool.errors import Interrupted, SkippedInputs, UsageError
from mltool.files import atomic, canonical_json, history
from mltool.files.embeddings_writer import PARTIAL, EmbeddingsWriter, discard
from mltool.files.lists import vector_lists
from mltool.files.locations import path_column
from mltool.files.manifest import Manifest
from mltool.files.vector_parts import Bounds
from mltool.models.embedder import Embedder
from mltool.models.source import Source, open_model
from mltool.models.spec import ModelSpec
from mltool.options import rules
from mltool.options.embedding import EmbedOptions
from mltool.options.group import list_recorded
from mltool.options.heads import refuse_embed_options
from mltool.options.lists import ListOptions
from mltool.options.model import SourceOptions
from mltool.options.run import InferenceOptions
from mltool.progress import Progress

logger = logging.getLogger(__name__)


class Penultimate(nn.Module):
    """A model without its projection: the pooled features."""

    def __init__(self, model: Embedder) -> None:
        super().__init__()
        self.model, self.spec = model, model.spec

    def forward(self, images: Tensor) -> Tensor:
        """Return pooled features [B, C]."""
        return self.model.penultimate(images)


class Part(nn.Module):
    """A model that gives the vector of one learner."""

    def __init__(self, model: Embedder, part: int) -> None:
        super().__init__()
        self.model, self.spec, self.part = model, model.spec, part

    def forward(self, images: Tensor) -> Tensor:
        """Return that part of the vectors [B, D']."""
        return self.model(images, part=self.part)


@dataclass(frozen=True)
class _Call:
    """What the command was called with."""

    model: str
    data: list[str]
    output: str
    options: EmbedOptions
    source: SourceOptions
    lists: ListOptions
    execution: InferenceOptions


def run(
    model: str,
    data: list[str],
    output: str,
    *,
    options: EmbedOptions = EmbedOptions(),
    source: SourceOptions = SourceOptions(),
    lists: ListOptions = ListOptions(),
    execution: InferenceOptions = InferenceOptions(),
) -> None:
    """Embed the images of the lists `data`; the file appears under `output` when it is finished.

    Raises Interrupted when a signal came (the partial file is kept), SkippedInputs at the end
    when images were left out, and UsageError, InputError, NumericError and ResourceError.
    """
    rules.check_embed(options, source)
    call = _Call(model, data, output, options, source, lists, execution)
    device = devices.choose(execution.device)
    devices.set_threads(execution.threads)
    of_vectors = heads.is_head(model)
    if of_vectors:
        refuse_embed_options(options, source)
    manifest = _read_list(data, lists, options.shard, of_vectors=of_vectors)
    opened = open_by_options(model, source, seed=execution.seed)
    precision = devices.precision(execution.precision, device, training=False, of_head=of_vectors)
    _choose_output(opened.model, options)
    dim = _dim(opened.model, options)
    logger.info("embed: %s; %d-d, %s, %s", manifest.summary(), dim, precision, device)
    if options.dry_run:
        columns = options.views * dim
        size = len(manifest) * columns * np.dtype(options.dtype).itemsize
        logger.info("would write %s: %d x %d, %.1f MB", output, len(manifest), columns, size / 1e6)
        return
    read = vector_lists.list_files(data) if of_vectors else data
    atomic.refuse_inputs(output, [model, source.weights, *read])
    with atomic.claim(output):
        skipped = _write(call, manifest, opened, device, precision)
    if skipped and options.on_bad_image == "skip":
        raise SkippedInputs(f"{skipped} images could not be read and were left out")


def _read_list(data: list[str], lists: ListOptions, shard: str, *, of_vectors: bool) -> Manifest:
    """Return the rows of the lists that this shard has."""
    manifest = open_selected(data, lists, of_vectors=of_vectors)
    number, shards = rules.parse_shard(shard)
    edges = np.linspace(0, len(manifest), shards + 1).round().astype(int)
    return manifest.take(np.arange(edges[number], edges[number + 1]))


def open_by_options(model: str, source: SourceOptions, *, seed: int) -> Source:
    """Open the model that a text names, as the options say. Raises UsageError, InputError."""
    return open_model(
        model,
        weights=source.weights,
        pooling=source.pooling,
        image_size=source.image_size,
        resize=source.resize,
        seed=seed,
        keep_aspect=source.keep_aspect,
    )


def _write(
    call: _Call, manifest: Manifest, opened: Source, device: torch.device, precision: str
) -> int:
    """Write the file; return how many images were skipped."""
    model = _choose_output(opened.model, call.options)
    steps = _history(call, manifest, opened, precision)
    logger.debug("settings: %s", steps[-1]["settings"])
    if call.options.resume and _is_made_by(call.output, steps):
        logger.info("%s is finished already", call.output)
        if _is_made_by(call.output + PARTIAL, steps):
            discard(call.output)  # killed between the last two steps of finishing
        return 0
    source = _open_source(call, manifest, opened)
    with _open_writer(call, manifest, opened, source, steps) as writer:
        how = Extraction(
            batch_size=max(1, call.execution.batch_size // call.options.views),
            workers=_count_workers(call.execution, of_vectors=opened.model.spec.takes_vectors),
            device=device,
            precision=precision,
        )
        model = model.to(device).to(memory_format=torch.channels_last)
        _fill(writer, model, source, how, views=call.options.views)
        skipped = int(writer.skip_mask().sum())
        digest = writer.finish()
    logger.info(
        "wrote %s: %d images (digest %s)", call.output, len(manifest) - skipped, digest[:12]
    )
    return skipped


def _open_writer(
    call: _Call,
    manifest: Manifest,
    opened: Source,
    source: Images | Vectors,
    steps: history.History,
) -> EmbeddingsWriter:
    """Open the file to write, with all that is known before the first vector."""
    spec, options = opened.model.spec, call.options
    return EmbeddingsWriter(
        call.output,
        names=manifest.names,
        dim=options.views * _dim(opened.model, options),
        dtype=options.dtype,
        labels=manifest.labels,
        label_names=manifest.label_names,
        columns=_columns(manifest, call.output, of_vectors=spec.takes_vectors),
        metric=spec.metric,
        normalized=spec.normalize and not options.penultimate and options.dtype == "float32",
        space=_name_space(opened, options),
        teacher_space=spec.teacher_space if _is_whole(options) else "",
        views=options.views,
        parts=_list_parts(opened.model, options),
        preprocess=_preprocess(options, source, spec, seed=call.execution.seed),
        root=manifest.root,
        history=steps,
        resume=options.resume,
    )


def _fill(
    writer: EmbeddingsWriter,
    model: nn.Module,
    source: Images | Vectors,
    how: Extraction,
    *,
    views: int,
) -> None:
    """Embed the rows that the file lacks. Raises Interrupted when a signal came."""
    total = len(source.manifest)
    with watch() as stop, Progress("embed", total, start=writer.rows_done) as bar:
        if writer.rows_done:
            logger.info("going on after %d of %d images", writer.rows_done, total)
        rows = range(writer.rows_done, total)
        for block in embed_blocks(model, source, rows, how, views=views):
            for reason in block.failures:
                logger.warning("left out: %s", reason)
            writer.append(block.vectors, valid=block.kept)
            bar.update(writer.rows_done)
            if stop.requested and writer.rows_done < total:
                raise Interrupted(
                    f"stopped by a signal after {writer.rows_done} of {total} images; "
                    f"go on with --resume"
                )


def _open_source(call: _Call, manifest: Manifest, opened: Source) -> Images | Vectors:
    """Open the list as the model sees it. Raises InputError for vectors that a head cannot take."""
    spec = opened.model.spec
    if spec.takes_vectors:
        vectors = Vectors(manifest, columns=())
        heads.check_input(spec, vectors.stored, head=call.model)
        return vectors
    return Images(
        manifest,
        spec,
        _view(call.options, spec),
        seed=call.execution.seed,
        skip_bad=call.options.on_bad_image != "error",
    )


def _columns(manifest: Manifest, output: str, *, of_vectors: bool) -> dict[str, np.ndarray]:
    """Return the columns of the file, which say where the images are if the names do not."""
    folder = str(Path(output).absolute().parent)
    if of_vectors:
        return vector_lists.columns_for(manifest, folder)
    return manifest.columns | path_column(manifest.names, manifest.paths, folder)


def _count_workers(execution: InferenceOptions, *, of_vectors: bool) -> int:
    if execution.workers is not None:
        return execution.workers
    return 0 if of_vectors else default_workers()


def _view(options: EmbedOptions, spec: ModelSpec) -> Augmentation:
    """Return the view of the test for one, what training would draw for several."""
    if options.views == 1:
        return plain_view(spec)
    return components.load("augmentations", options.augment, size=spec.crop)


def _preprocess(
    options: EmbedOptions, source: Images | Vectors, spec: ModelSpec, *, seed: int
) -> str:
    """Return what was done to the pixels; of several views also what a student must do."""
    if isinstance(source, Vectors):
        return source.stored.preprocess
    if options.views == 1:
        return spec.preprocess
    augment = components.parse("augmentations", options.augment).text
    views = {"augment": augment, "seed": seed}
    return canonical_json.to_json(json.loads(spec.preprocess) | views)


def _is_made_by(path: str, steps: history.History) -> bool:
    if not Path(path).is_file():
        return False
    present = history.read(path)
    return bool(present) and canonical_json.digest(present[-1]) == canonical_json.digest(steps[-1])


def _is_whole(options: EmbedOptions) -> bool:
    """Return whether the vectors are the embeddings that the model is for."""
    return options.part is None and not options.penultimate


def _choose_output(model: Embedder, options: EmbedOptions) -> nn.Module:
    """Return what gives the vectors. Raises UsageError for a part that the model does not have."""
    if options.penultimate:
        return Penultimate(model)
    if options.part is None:
        return model
    count = model.parts.count if model.parts is not None else 0
    if options.part >= count:
        names = f"parts 0 to {count - 1}" if count else "no parts (train --parts makes some)"
        raise UsageError(f"--part {options.part}: the model has {names}")
    return Part(model, options.part)


def _name_space(opened: Source, options: EmbedOptions) -> str:
    if options.part is not None:
        return f"{opened.space}/part-{options.part}"
    return f"{opened.space}/penultimate" if options.penultimate else opened.space


def _list_parts(model: Embedder, options: EmbedOptions) -> Bounds:
    """Return the columns of the parts of whole vectors of one view, where parts are columns."""
    is_plain = _is_whole(options) and options.views == 1
    return model.parts.bounds if is_plain and model.parts is not None else ()


def _dim(model: Embedder, options: EmbedOptions) -> int:
    """Return the length of a vector, of pooled features asked of the model itself."""
    if options.part is not None and model.parts is not None:
        return model.parts.part_dim
    if not options.penultimate:
        return model.spec.dim
    blank = torch.zeros(1, *model.spec.input_shape, device=model.mean.device)
    with torch.inference_mode():
        return model.eval().penultimate(blank).shape[1]


def _history(call: _Call, manifest: Manifest, source: Source, precision: str) -> history.History:
    digest, of_vectors = manifest.digest(), source.model.spec.takes_vectors
    if of_vectors:
        inputs = [*source.inputs, *vector_lists.list_inputs("data", call.data)]
    else:
        inputs = [*source.inputs, *history.list_inputs("data", call.data, digest)]
    if call.lists.labels:
        inputs += history.list_inputs("--labels", [call.lists.labels], digest)
    options = list_recorded(call.options, call.lists)
    views: dict[str, object] = {}
    if call.options.views > 1:
        augment = components.parse("augmentations", call.options.augment).text
        views = {"views": call.options.views, "augment": augment, "seed": call.execution.seed}
    settings = {
        **source.settings,
        **{key: value for key, value in options.items() if key not in ("views", "augment")},
        **views,
        "batch_size": call.execution.batch_size,
        "precision": precision,
    }
    step = history.record(
        "embed",
        inputs=inputs,
        settings=settings,
        counts={"vectors" if of_vectors else "images": len(manifest)},
    )
    before = vector_lists.read_histories(call.data) if of_vectors else history.read_all(call.data)
    before += history.read_all([call.lists.labels])
    return history.extend(source.history, *before, record=step)
