"""The work of `mltool pretrain`: from options to a plan, and the plan carried out."""

import logging
from dataclasses import dataclass, field

import torch

from mltool import components, distributed
from mltool.commands import heads, training_data, training_record, training_setup
from mltool.commands.training_options import TrainingOptions
from mltool.components import Choice
from mltool.datasets import open_data
from mltool.engine import device as devices
from mltool.engine import sources, training
from mltool.engine.data import Images, split_views
from mltool.engine.objectives.objective import Objective
from mltool.engine.objectives.pretext import PretextTerm
from mltool.engine.probe import Probe
from mltool.engine.samplers import Shuffled
from mltool.engine.streams import MAIN, Stream
from mltool.engine.training import TrainingPlan
from mltool.errors import InputError, SkippedInputs
from mltool.exact.knn import Resources
from mltool.files import atomic, history
from mltool.files.manifest import Manifest
from mltool.models.embedder import Embedder, count_parameters
from mltool.options import rules
from mltool.options.batches import BatchOptions, TupleOptions
from mltool.options.group import list_recorded
from mltool.options.images import ImageOptions
from mltool.options.lists import ListOptions
from mltool.options.model import ModelOptions
from mltool.options.objective import ObjectiveOptions
from mltool.options.optimisation import OptimisationOptions
from mltool.options.pretext import LARGE_VIEWS, BackboneOptions, PretextOptions, choose_views
from mltool.options.run import RunOptions
from mltool.options.validation import ValidationOptions
from mltool.retrieval.overlap import find_image_overlap

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class _Request:
    """What the command was called with: its own options, and those of all that learn."""

    pretext: PretextOptions
    backbone: BackboneOptions
    shared: TrainingOptions

    @property
    def method(self) -> Choice:
        """The self-supervised task."""
        return components.parse("pretexts", self.pretext.method)

    @property
    def augmentation(self) -> Choice:
        """What makes the views."""
        return choose_views(self.method, self.shared.images.augment)


@dataclass(frozen=True)
class _Data:
    """The images that are learned from, and what became of the list that was read."""

    images: Manifest
    digest: str  # of the list as it was read
    reasons: list[str]  # why images could not be read
    counts: dict[str, int] = field(default_factory=dict)  # of images that stand in another list
    against: str = ""  # digest of that list


def run(
    data: list[str],
    output: str,
    *,
    pretext: PretextOptions = PretextOptions(),
    backbone: BackboneOptions = BackboneOptions(),
    images: ImageOptions = ImageOptions(),
    lists: ListOptions = ListOptions(),
    optimisation: OptimisationOptions = OptimisationOptions(),
    execution: RunOptions = RunOptions(),
) -> None:
    """Train a backbone on the image lists `data`; it appears under `output` when it is finished.

    Raises UsageError for options that do not fit, SkippedInputs at the end when images were left
    out, and what `training.train` raises.
    """
    rules.check_pretrain(pretext, backbone, images)
    model = ModelOptions(
        arch=backbone.arch,
        weights=backbone.weights,
        init=backbone.init,
        keep_optimizer=backbone.keep_optimizer,
        pooling="avg",
        projection="none",
    )
    shared = TrainingOptions(
        data=data,
        output=output,
        losses=[],
        model=model,
        objective=ObjectiveOptions(),
        images=images,
        lists=lists,
        batches=BatchOptions(batch_size=pretext.batch_size),
        tuples=TupleOptions(),
        optimisation=optimisation,
        validation=ValidationOptions(),
        execution=execution,
    )
    request = _Request(pretext=pretext, backbone=backbone, shared=shared)
    with training_setup.session(shared) as device:
        reasons = _pretrain(request, device)
    if reasons and images.on_bad_image == "skip":
        raise SkippedInputs(f"{len(reasons)} images could not be read and were left out")


def _pretrain(request: _Request, device: torch.device) -> list[str]:
    """Make and carry out the plan; returns why images were left out."""
    options = request.shared
    if heads.learns_head(options.model):
        raise InputError(f"{options.model.init} takes cached vectors; pretrain takes images")
    manifest = training_data.read_list(options)
    model = training_setup.build_model(options, manifest)
    data = _check_images(request, manifest, model)
    plan = _plan(request, model, data, device)
    if options.execution.dry_run:
        size = 4 * (count_parameters(model) + count_parameters(plan.objective)) / 1e6
        logger.info("would write %s, about %.1f MB", options.output, size)
        return []
    inputs = [options.model.init, options.model.weights, *options.data]
    inputs += [*(request.pretext.probe or []), *(request.pretext.check_against or [])]
    atomic.refuse_inputs(options.output, inputs)
    training.train(plan, training_setup.runtime(options, device))
    return data.reasons


def _check_images(request: _Request, manifest: Manifest, model: Embedder) -> _Data:
    """Leave out what cannot be read, and on demand what stands in the list to check against."""
    digest = manifest.digest()
    manifest, reasons = training_data.drop_unreadable(request.shared, manifest, model)
    texts = request.pretext.check_against
    if texts is None:
        return _Data(manifest, digest, reasons)
    others = open_data(texts)
    resources = Resources(threads=request.shared.execution.threads)
    overlap = find_image_overlap(manifest, others, resources=resources)
    logger.info("in %s: %s", " ".join(texts), overlap)
    if request.pretext.drop_overlap:
        manifest = manifest.take(~overlap.mask)
        logger.info("%d images are left out", int(overlap.mask.sum()))
        if not len(manifest):
            raise InputError(f"all images stand in {' '.join(texts)}; nothing is left to learn")
    return _Data(manifest.compact(), digest, reasons, overlap.as_counts(), others.digest())


def _plan(request: _Request, model: Embedder, data: _Data, device: torch.device) -> TrainingPlan:
    options = request.shared
    size = options.batches.batch_size * distributed.world()
    sampler = Shuffled(
        len(data.images),
        size=size,
        seed=options.execution.seed,
        processes=distributed.world(),
    )
    training_setup.refuse_single(options, model, sampler)
    loop = training_setup.loop_settings(options, device, model)
    rates = training_setup.choose_rates(options, steps=sampler.steps)
    plan = TrainingPlan(
        model=model,
        objective=_build_objective(request, model, images=len(data.images)),
        streams=(Stream(MAIN, _open_views(request, model, data.images), sampler),),
        loop=loop,
        optim=rates,
        ema=options.optimisation.ema,
        pretrained=options.is_pretrained,
        validation=None,
        classes=(),
        history=_history(request, model, data, rates.warmup, loop.precision),
        probe=_open_probe(request, model, device),
        course=training_setup.open_course(options),
    )
    training_setup.report("pretrain", plan)
    return plan


def _build_objective(request: _Request, model: Embedder, *, images: int) -> Objective:
    """Build the task and its heads, random from the seed."""
    seed = request.shared.execution.seed
    torch.manual_seed(seed)
    term = PretextTerm(request.method, model=model, images=images)
    return Objective(
        {"pretext": term},
        seed=seed,
        generator=torch.Generator().manual_seed(seed),
        normalizes=model.spec.normalize,
    )


def _open_views(request: _Request, model: Embedder, manifest: Manifest) -> Images:
    """Open the images as the views that the task compares."""
    augment = components.load("augmentations", request.augmentation, size=model.spec.crop)
    return Images(
        manifest,
        model.spec,
        split_views(augment, request.method.declared.views or LARGE_VIEWS),
        seed=request.shared.execution.seed,
        cache=request.shared.images.cache == "ram",
    )


def _open_probe(request: _Request, model: Embedder, device: torch.device) -> Probe | None:
    """Return the labelled images of --probe, None without."""
    texts, options = request.pretext.probe, request.shared
    if texts is None:
        return None
    manifest = training_data.keep_labelled(open_data(texts, need_split=True), texts, "--probe")
    manifest, _ = training_data.drop_unreadable(options, manifest, model)
    logger.info("probe: %s", manifest.summary())
    precision = devices.precision(options.execution.precision, device, training=False)
    return Probe(
        source=sources.open_test(manifest, model.spec, cache=options.images.cache == "ram"),
        every=request.pretext.probe_every,
        batch_size=options.batches.batch_size,
        precision=precision,
    )


def _history(
    request: _Request, model: Embedder, data: _Data, warmup: float, precision: str
) -> history.History:
    """Return the history that ends with this run."""
    options, against = request.shared, request.pretext.check_against or []
    inputs = history.list_inputs("data", options.data, data.digest)
    if options.lists.labels:
        inputs += history.list_inputs("--labels", [options.lists.labels], data.digest)
    inputs += history.list_inputs("--check-against", against, data.against)
    inputs += training_record.list_files(options)
    step = history.record(
        "pretrain",
        inputs=inputs,
        settings=_record_settings(request, model) | {"warmup": warmup, "precision": precision},
        counts={"images": len(data.images), **data.counts},
    )
    before = history.read_all([*options.data, *against, options.lists.labels, options.model.init])
    return history.extend(*before, record=step)


def _record_settings(request: _Request, model: Embedder) -> dict[str, object]:
    """Return the recorded options, those that were left open as they were resolved."""
    options, spec = request.shared, model.spec
    settings = list_recorded(
        request.pretext,
        request.backbone,
        options.images,
        options.lists,
        options.optimisation,
        options.execution,
    )
    settings |= {
        "method": request.method.text,
        "augment": request.augmentation.text,
        "arch": spec.backbone,
        "image_size": spec.crop,
        "resize": spec.resize,
        "freeze_bn": options.freeze_bn,
        "lr": options.lr,
    }
    if options.model.weights != "timm":
        settings.pop("weights", None)  # a file is an input
    return settings
