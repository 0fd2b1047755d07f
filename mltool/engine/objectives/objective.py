"""The objective of a run: a weighted sum of terms.

A term is a loss of pairs, a transfer, or what else its command lists. All that a run minimises
stands in that list: a method that needs another noun gets another kind of term, no branch here.
"""

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from torch import Generator, Tensor, nn

from mltool import distributed
from mltool.engine.data import Batch
from mltool.engine.loop import Embed
from mltool.engine.objectives.step_outputs import Features, StepOutputs, embed_views
from mltool.engine.streams import MAIN
from mltool.engine.teachers import Teacher
from mltool.models.embedder import ModelInputs
from mltool.models.features import FeatureHooks
from mltool.models.stages import StageHook
from mltool.moment import Moment


class Term(nn.Module, ABC):
    """One term of the sum. Kinds of terms give `forward`, and declare what differs from here.

    A term reads the batch of one stream. `group` names the optimiser group of its parameters (see
    `RATE_GROUPS`); a module inside may name another.
    """

    group = "proxies"
    reads_raw = False  # whether the vectors must come before normalisation
    # how its stream goes through the model: "together" with others, "apart" from them, or "views",
    # all views of its batch, of which the first gives the vectors
    passes = "together"
    stage: str | None = None  # of the network, whose activations it mixes
    columns: frozenset[str] = frozenset()  # of the image list, that it reads where they exist
    # against embeddings that all become the same
    remedy = "try a lower --lr, easier negatives (another --miner), or more classes per batch"
    warmup = 0  # steps at the start of a run in which the model stands still
    hold_until = 0  # the epoch before which the backbone stands still in the term's steps

    def __init__(self, name: str, *, stream: str = MAIN) -> None:
        super().__init__()
        self.name, self.stream = name, stream

    def active(self, batch: Batch) -> bool:
        """Return whether the term takes part in a step; all ranks must get the same answer."""
        return True

    @abstractmethod
    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the weighted scalars of this term by name."""

    def figures(self) -> dict[str, float]:
        """Return what the log says about the latest step besides the loss."""
        return {}


class Objective(nn.Module):
    """The sum of terms over the rows of all ranks, evaluated in the order listed.

    The keys of `terms` name what they save: `terms.KEY.` in a checkpoint. What is random in a
    term draws from `generator`, seeded here by (seed, step): equal on all ranks, and the same
    again after a resume. A teacher is no part of the objective: it is neither trained nor saved.

    Args:
        terms: by key; several of them may read one stream.
        normalizes: whether the student's embeddings have unit length.
        raw: ask for vectors before normalisation even where no term does.
        features: hooks at the student, where terms read more than vectors.
    """

    def __init__(
        self,
        terms: Mapping[str, Term],
        *,
        seed: int,
        generator: Generator,
        normalizes: bool = True,
        raw: bool = False,
        teacher: Teacher | None = None,
        features: FeatureHooks | None = None,
    ) -> None:
        super().__init__()
        self.terms, self._listed = nn.ModuleDict(terms), list(terms.values())
        self.seed, self.generator, self.normalizes = seed, generator, normalizes
        self.teacher, self.features = teacher, features
        self.raw = raw or any(term.reads_raw for term in self._listed)
        self.apart = {term.stream for term in self._listed if term.passes != "together"}
        self.in_views = {term.stream for term in self._listed if term.passes == "views"}
        self.remedy = self._listed[0].remedy if self._listed else Term.remedy
        self.warmup = max((term.warmup for term in self._listed), default=0)
        stages = {term.stage for term in self._listed if term.stage is not None}
        assert len(stages) <= 1, "all terms mix at one stage"
        self.stage = next(iter(stages), None)

    def columns(self, stream: str = MAIN) -> list[str]:
        """List the columns of the image list that the terms on a stream read."""
        terms = [term for term in self._listed if term.stream == stream]
        return sorted({name for term in terms for name in term.columns})

    def figures(self) -> dict[str, float]:
        """Return what the log says about the latest step besides the loss."""
        return {name: value for term in self._listed for name, value in term.figures().items()}

    def forward(
        self, streams: Mapping[str, Batch], model: Embed, moment: Moment
    ) -> dict[str, Tensor]:
        """Return the weighted scalars of all active terms by name."""
        self.generator.manual_seed(hash((self.seed, moment.step)))
        if moment.step < self.warmup:  # all passes of the step, those of mixed examples too
            model = torch.no_grad()(model)
        outputs: dict[str, StepOutputs] = {}
        for names in self._passes(streams):
            batches = {name: streams[name] for name in names}
            in_views = not self.in_views.isdisjoint(names)
            embed = self._embed_views if in_views else self._embed
            outputs |= embed(batches, model, moment)
        values: dict[str, Tensor] = {}
        for term in self._listed:
            if term.active(streams[term.stream]):
                values |= term(outputs[term.stream])
        return values

    def _passes(self, streams: Mapping[str, Batch]) -> list[list[str]]:
        """List the streams that go through the model together: those with inputs of one shape."""
        groups: dict[object, list[str]] = defaultdict(list)
        for name, batch in streams.items():
            inputs = batch.inputs
            shape = inputs.shape[1:] if isinstance(inputs, Tensor) else "unequal"
            groups[name if name in self.apart else shape].append(name)
        return list(groups.values())

    def _embed(
        self, batches: Mapping[str, Batch], model: Embed, moment: Moment
    ) -> dict[str, StepOutputs]:
        """Embed the batches of some streams in one pass, and split what comes out."""
        model = self._choose_part(batches, model, moment)
        settings: dict[str, object] = {"raw": True} if self.raw else {}
        hook = StageHook(self.stage) if self.stage is not None else None
        if hook is not None:
            settings["tap"] = hook
        vectors = model(_join([batch.inputs for batch in batches.values()]), **settings)
        spans = _spans([len(batch.labels) for batch in batches.values()])
        return {
            name: StepOutputs(
                batch=batch,
                vectors=distributed.gather(_take_span(vectors, span)),
                is_raw=self.raw,
                normalizes=self.normalizes,
                moment=moment,
                model=model,
                generator=self.generator,
                teacher=self.teacher,
                features=Features.from_hooks(self.features, span)
                if self.features is not None
                else None,
                stage_outputs=_take_span(hook.seen, span) if hook is not None else None,
            )
            for (name, batch), span in zip(batches.items(), spans, strict=True)
        }

    def _choose_part(self, batches: Mapping[str, Batch], model: Embed, moment: Moment) -> Embed:
        """Return the model for one pass: the part of the vector that learns, and what does not."""
        settings: dict[str, object] = {}
        learners = {batch.learner for batch in batches.values()}
        assert len(learners) == 1, "batches of different learners"
        if (learner := learners.pop()) is not None:
            settings["part"] = learner
        if any(
            moment.epoch < term.hold_until and term.active(batches[term.stream])
            for term in self._listed
            if term.stream in batches
        ):
            settings["hold_backbone"] = True
        return partial(model, **settings) if settings else model

    def _embed_views(
        self, batches: Mapping[str, Batch], model: Embed, moment: Moment
    ) -> dict[str, StepOutputs]:
        """Embed all views of the batch of one stream; its vectors are those of the first view."""
        ((name, batch),) = batches.items()
        assert batch.views, "an augmentation of a single view"
        views = embed_views(batch.views, lambda images: model(images, raw=self.raw))
        outputs = StepOutputs(
            batch=batch,
            vectors=views[0],
            is_raw=self.raw,
            normalizes=self.normalizes,
            moment=moment,
            model=model,
            generator=self.generator,
            teacher=self.teacher,
            views=views,
        )
        return {name: outputs}


def _join(inputs: Sequence[ModelInputs]) -> ModelInputs:
    """Join the inputs of several batches, of one shape or as a sequence of unequal images."""
    if len(inputs) == 1:
        return inputs[0]
    stacks = [each for each in inputs if isinstance(each, Tensor)]
    return torch.cat(stacks) if stacks else [image for each in inputs for image in each]


def _spans(sizes: Sequence[int]) -> list[slice | None]:
    """Return the rows of each batch in a joint pass, None for a batch that is alone in it."""
    if len(sizes) == 1:
        return [None]
    ends = np.cumsum(sizes).tolist()
    return [slice(end - size, end) for end, size in zip(ends, sizes, strict=True)]


def _take_span(rows: Tensor | None, span: slice | None) -> Tensor:
    assert rows is not None
    return rows if span is None else rows[span]
