"""The record of a run that learns: its inputs, and the options that can change the result."""

from collections.abc import Mapping, Sequence

from mltool import components
from mltool.commands.training_options import TrainingOptions
from mltool.commands.training_setup import augmentation
from mltool.engine.training import Validation
from mltool.files import history
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder
from mltool.models.spec import ModelSpec
from mltool.options.group import recorded


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
    counts = {"images": len(manifest), **counts}
    if manifest.pairs is not None and options.mining is not None:
        counts["pairs"] = len(manifest.pairs)
    step = history.record(
        command,
        inputs=[*_list_inputs(options, manifest, held_out), *inputs],
        settings=_settings(options, model.spec, held_out) | dict(settings),
        counts=counts,
    )
    lists = [*options.data, *(options.validation.val or []), options.lists.labels]
    lists += [options.tuples.pairs, options.model.init]
    return history.extend(*history.read_all(lists), *before, record=step)


def _list_inputs(
    options: TrainingOptions, manifest: Manifest, held_out: Validation | None
) -> list[tuple[str, str, str]]:
    """Return (option, path, digest) of every file and list that the run reads."""
    inputs = history.list_inputs("data", options.data, manifest.digest())
    if held_out is not None:
        digest = held_out.images.manifest.digest()
        inputs += history.list_inputs("--val", options.validation.val or [], digest)
    if options.lists.labels:
        inputs += history.list_inputs("--labels", [options.lists.labels], manifest.digest())
    for option, path in (
        ("--pairs", options.tuples.pairs),
        ("--init", options.model.init),
        ("--weights", options.model.weights),
    ):
        if path and path != "timm":
            inputs.append((option, path, history.digest_of_file(path)))
    return inputs


def _settings(
    options: TrainingOptions, spec: ModelSpec, held_out: Validation | None
) -> dict[str, object]:
    """Return the recorded options, those that were left open as they were resolved."""
    settings = recorded(
        options.model,
        options.images,
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
        "pooling": spec.pooling,
        "projection": spec.projection,
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
