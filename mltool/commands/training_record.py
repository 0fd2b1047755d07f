"""The record of a run that learns: its inputs, and the options that can change the result."""

from collections.abc import Mapping, Sequence

from mltool import components
from mltool.commands.training_data import augmentation
from mltool.commands.training_options import TrainingOptions
from mltool.engine.cluster_sampler import ClustersInTurn
from mltool.engine.samplers import ClassBalanced, Sampler, Views
from mltool.engine.training import Validation
from mltool.files import history
from mltool.files.lists import selection, vector_lists
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.models.spec import ModelSpec
from mltool.options.group import list_recorded


def record(
    command: str,
    options: TrainingOptions,
    model: Embedder,
    manifest: Manifest,
    held_out: Validation | None,
    *,
    settings: Mapping[str, object],
    counts: Mapping[str, int],
    inputs: Sequence[tuple[str, str, str]] = (),
    before: Sequence[history.History] = (),
) -> history.History:
    """Return the history of a run; the keywords are what the command adds."""
    of_vectors = model.spec.takes_vectors
    counts = {"vectors" if of_vectors else "images": len(manifest), **counts}
    if manifest.pairs is not None and options.mining is not None:
        counts["pairs"] = len(manifest.pairs)
    step = history.record(
        command,
        inputs=[*_list_inputs(options, manifest, held_out, of_vectors=of_vectors), *inputs],
        settings=_settings(options, model.spec, held_out) | dict(settings),
        counts=counts,
    )
    data = [*options.data, *(options.validation.val or [])]
    of_data = vector_lists.read_histories(data) if of_vectors else history.read_all(data)
    others = history.read_all([options.lists.labels, options.tuples.pairs, options.model.init])
    return history.extend(*of_data, *others, *before, record=step)


def record_sizes(sampler: Sampler) -> dict[str, object]:
    """Return the sizes of P x K batches as they were resolved, nothing for other batches."""
    while isinstance(sampler, Views):
        sampler = sampler.sampler
    if isinstance(sampler, ClustersInTurn):
        sampler = sampler.every
    if not isinstance(sampler, ClassBalanced):
        return {}
    return {
        "classes_per_batch": sampler.classes_per_batch,
        "images_per_class": sampler.images_per_class,
    }


def _list_inputs(
    options: TrainingOptions, manifest: Manifest, held_out: Validation | None, *, of_vectors: bool
) -> list[tuple[str, str, str]]:
    """Return (option, path, digest) of every file and list that the run reads."""
    held = options.validation.val or []
    if of_vectors:
        inputs = vector_lists.list_inputs("data", options.data)
        inputs += vector_lists.list_inputs("--val", held)
    else:
        inputs = history.list_inputs(
            "data", options.data, _digest_data(options, manifest, held_out)
        )
        if held_out is not None and held:
            inputs += history.list_inputs("--val", held, held_out.source.manifest.digest())
    if options.lists.labels:
        inputs += history.list_inputs("--labels", [options.lists.labels], manifest.digest())
    return inputs + list_files(options)


def list_files(options: TrainingOptions) -> list[tuple[str, str, str]]:
    """Return (option, path, digest) of the files that a run reads besides its lists."""
    paths = {
        "--pairs": options.tuples.pairs,
        "--init": options.model.init,
        "--weights": options.model.weights,
    }
    return [
        (option, path, history.digest_of_file(path))
        for option, path in paths.items()
        if path and path != "timm"
    ]


def _digest_data(options: TrainingOptions, manifest: Manifest, held_out: Validation | None) -> str:
    """Return the digest of the list, with the images of the fold that is held out of it."""
    if options.validation.fold is None or held_out is None:
        return manifest.digest()
    return selection.join([manifest, held_out.source.manifest]).digest()


def _settings(
    options: TrainingOptions, spec: ModelSpec, held_out: Validation | None
) -> dict[str, object]:
    """Return the recorded options, those that were left open as they were resolved."""
    settings = list_recorded(
        options.model,
        options.objective,
        options.lists,
        options.batches,
        options.tuples,
        options.optimisation,
        options.validation,
        options.execution,
    )
    settings |= {
        "loss": [loss.text for loss in options.losses],
        "arch": spec.backbone,
        "dim": spec.dim,
        "projection": spec.projection,
        "freeze_bn": options.freeze_bn,
        "lr": options.lr,
    }
    if spec.takes_vectors:
        del settings["pooling"]
    else:
        settings |= list_recorded(options.images) | {
            "pooling": spec.pooling,
            "image_size": spec.crop,
            "resize": spec.resize,
            "augment": components.parse("augmentations", augmentation(options, spec)).text,
        }
    if options.mining is not None:
        settings |= {key: n for key, n in vars(options.mining).items() if key != "kind"}
    if options.model.weights != "timm":
        settings.pop("weights", None)  # a file is an input
    if held_out is None:
        del settings["select"], settings["val_every"]
    return settings
