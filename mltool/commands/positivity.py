"""The work of `mltool positivity`: a model and images in, a table and a picture out."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace

import torch

from mltool import components
from mltool.commands import heads
from mltool.commands.selected_data import open_selected
from mltool.commands.training_data import keep_labelled
from mltool.components import Choice
from mltool.engine import device as devices
from mltool.engine import sources
from mltool.engine.data import Batch
from mltool.engine.loading import default_workers, load
from mltool.engine.mixed_positivity import Curve, as_text, measure
from mltool.engine.objectives.mixing import MixedTerm
from mltool.engine.objectives.pair_loss import PairTerm
from mltool.engine.samplers import ClassBalanced, choose_sizes
from mltool.engine.vectors import Vectors
from mltool.errors import UsageError
from mltool.files import atomic
from mltool.files.manifest import Manifest
from mltool.mixups import Mixup
from mltool.models import checkpoint, stages
from mltool.models.checkpoint import Checkpoint
from mltool.options import rules
from mltool.options.additions import explain_no_mixup
from mltool.options.choices import is_transfer, parse_loss
from mltool.options.lists import ListOptions
from mltool.options.retrieval import PositivityOptions
from mltool.retrieval import pictures


def run(
    model: str,
    data: list[str],
    *,
    options: PositivityOptions = PositivityOptions(),
    lists: ListOptions = ListOptions(),
) -> None:
    """Measure on the image lists `data`, draw the curves if asked for, print text or JSON.

    Raises UsageError, InputError, ResourceError.
    """
    rules.check_positivity(options)
    if options.output is not None:
        atomic.refuse_inputs(options.output, [model, *data])
        atomic.check_writable(options.output)
    device = devices.choose(options.device)
    devices.set_threads(options.threads)
    curve = _measure(checkpoint.read(model), data, options, lists, device)
    if options.output is not None:
        drawn = {"measured": curve.empirical}
        if curve.closed_form is not None:
            drawn["closed form"] = curve.closed_form
        picture = pictures.draw_lines(curve.share, drawn, across="lambda", up="acts as a positive")
        atomic.write(options.output, picture)
    print(json.dumps(asdict(curve)) if options.json else as_text(curve))


def _measure(
    start: Checkpoint,
    data: list[str],
    options: PositivityOptions,
    lists: ListOptions,
    device: torch.device,
) -> Curve:
    """Measure how often mixed examples act as positives for a model and its loss."""
    manifest = open_selected(
        data,
        lists,
        need_split=True,
        of_vectors=start.spec.takes_vectors,
    )
    manifest = keep_labelled(manifest, data, "positivity")
    loss, level = _choose_texts(options, start)
    choice = components.parse("losses", loss)
    term = _term(choice, start, manifest)
    if reason := explain_no_mixup(choice, level, symmetric=True):
        raise UsageError(f"--mixup has no place here: {reason}")
    mixup: Mixup = components.load("mixups", level)()
    _check(term, mixup, keep_aspect=start.spec.keep_aspect)
    network = start.build_model().to(device)
    if mixup.stage is not None:
        stages.check(network.backbone, mixup.stage)
    miner = _read_settings(start).get("miner")
    return measure(
        network,
        _batches(options, start, manifest, device),
        term.to(device),
        mixup,
        miner=components.parse("miners", miner) if miner else None,
        level=components.parse("mixups", level).text,
        seed=options.seed,
    )


def _choose_texts(options: PositivityOptions, saved: Checkpoint) -> tuple[str, str]:
    """Return (loss, mixup): those asked for, else those that the model was trained with."""
    trained = _read_settings(saved)
    level = options.mixup or trained.get("mixup") or "embedding"
    loss = options.loss or (trained.get("loss") or ["multi-similarity"])[0]
    _refuse_recorded_files(saved, {"loss": loss, "mixup": level, "miner": trained.get("miner")})
    if options.loss is not None:
        return loss, level
    trained_loss = parse_loss(loss, with_teacher=True)
    if is_transfer(trained_loss):
        raise UsageError(f"{saved.path} was trained by {loss}, which has no pairs; add --loss NAME")
    return replace(trained_loss, alias="").text, level


def _refuse_recorded_files(saved: Checkpoint, texts: Mapping[str, str | None]) -> None:
    """Raise UsageError for files as components: a checkpoint never names code to run."""
    for option, text in texts.items():
        file, is_file, _ = (text or "").partition(".py@")
        if is_file:
            remedy = f"; say where it is: --{option} ./{file}.py" if option != "miner" else ""
            raise UsageError(f"{saved.path} was trained with the {option} of {file}.py{remedy}")


def _read_settings(saved: Checkpoint) -> dict:
    return saved.history[-1]["settings"] if saved.history else {}


def _term(choice: Choice, saved: Checkpoint, manifest: Manifest) -> PairTerm:
    """Return the loss, with what it has learned. Raises UsageError where that cannot be."""
    label_names = manifest.label_names
    term = PairTerm(choice, classes=len(saved.classes) or len(label_names), dim=saved.spec.dim)
    if not any(p.requires_grad for p in term.parameters()):
        return term
    trained = _read_settings(saved).get("loss") or []
    names = [text.partition(":")[0] for text in trained]
    if choice.title not in names:
        raise UsageError(f"{saved.path} was not trained with {choice.title}; leave out --loss")
    if label_names != saved.classes:
        raise UsageError(f"{term.name} knows the classes that it was trained on; give that list")
    number = names.index(choice.title)
    # of the whole vector beside its parts; of a distillation or of mined tuples, in files of before
    wrapped = (f"terms.whole/{number}.term.", f"terms.{number}.term.")
    prefix = f"terms.{number}."
    for other in wrapped:
        if any(key.startswith(other) for key in saved.objective):
            prefix = other
    state = {k.removeprefix(prefix): v for k, v in saved.objective.items() if k.startswith(prefix)}
    checkpoint.load_state(term, state, saved.path)
    return term


def _check(term: PairTerm, mixup: Mixup, *, keep_aspect: bool) -> None:
    if reason := MixedTerm(term, mixup).incompatibility():
        raise UsageError(f"--mixup has no place here: {reason}")
    if {"pos-pos", "neg-neg"} & set(mixup.kinds):
        raise UsageError(f"pairs={mixup.pairs}: lambda decides nothing there; take pos-neg")
    if keep_aspect and mixup.stage is not None:
        raise UsageError("images of unequal sizes mix as embeddings only; add --mixup embedding")


def _batches(
    options: PositivityOptions, saved: Checkpoint, manifest: Manifest, device: torch.device
) -> Iterator[Batch]:
    """Yield P x K batches of test views, on the device."""
    p, k = choose_sizes(
        len(manifest.label_names),
        batch_size=options.batch_size,
        classes_per_batch=options.classes_per_batch,
        images_per_class=options.images_per_class,
    )
    sampler = ClassBalanced(
        manifest.labels, classes_per_batch=p, images_per_class=k, seed=options.seed
    )
    source = sources.open_test(manifest, saved.spec, seed=options.seed)
    if isinstance(source, Vectors):
        heads.check_input(saved.spec, source.stored, head=saved.path)
    usual = 0 if saved.spec.takes_vectors else default_workers()
    workers = usual if options.workers is None else options.workers
    rows = (sampler.batch(*divmod(number, sampler.steps)) for number in range(options.batches))
    for batch in load(source, rows, workers=workers):
        yield batch.to(device)
