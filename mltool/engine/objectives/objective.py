"""Supervised metric learning: losses on pairs of the batch, of batch and proxies, or on vectors."""

import logging
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from mltool import components, distributed
from mltool.engine.data import Batch
from mltool.engine.loop import Embed
from mltool.engine.objectives import mixing
from mltool.engine.objectives.memory import Memory, MemorySettings
from mltool.engine.objectives.mixing import Originals
from mltool.engine.objectives.pair_loss import Side, Term, distinct, miner, pairs_of
from mltool.errors import UsageError
from mltool.losses import Pairs
from mltool.mixups import Mixup
from mltool.models.stages import StageHook

logger = logging.getLogger(__name__)


class Supervised(nn.Module):
    """The sum of losses, each times its weight, over the rows of all ranks.

    `losses` are component texts that may carry `weight=`; `mining` chooses among the pairs of
    every loss whose both sides are the batch. `memory` adds to each of these losses a term of the
    batch against remembered embeddings, `mixup` one of it against mixed examples, which are chosen
    among the mined pairs. What is random is seeded by (seed, step), equal on all ranks and the same
    again after a resume. Labels are 0..classes-1.
    """

    steps: Tensor  # how many have been taken

    def __init__(
        self,
        losses: Sequence[str],
        *,
        mining: str | None,
        classes: int,
        dim: int,
        seed: int,
        memory: MemorySettings | None = None,
        mixup: str | None = None,
    ) -> None:
        super().__init__()
        self.seed = seed
        self.generator = torch.Generator()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        terms = [Term(text, classes=classes, dim=dim) for text in losses]
        self.names = distinct([term.name for term in terms])
        self.terms = nn.ModuleList(terms)
        self.miner = miner(mining, dim=dim, generator=self.generator)
        if mining and not any(term.minable for term in terms):
            raise UsageError(
                f"--miner {mining} has nothing to choose from: no loss has batch pairs"
            )
        if memory is not None:
            _check_memory(terms, mining)
        self.memory = Memory(memory, dim=dim) if memory is not None else None
        self.mixup: Mixup | None = components.load("mixups", mixup)() if mixup else None
        if self.mixup is not None:
            _check_mixup(terms, self.mixup)

    def forward(self, streams: Mapping[str, Batch], model: Embed) -> dict[str, Tensor]:
        """The weighted terms by name."""
        self.generator.manual_seed(hash((self.seed, int(self.steps))))
        batch, originals = self._embedded(streams["main"], model)
        values: dict[str, Tensor] = {}
        for name, term in zip(self.names, self.terms, strict=True):
            assert isinstance(term, Term)
            values |= self._values(name, term, batch, originals)
        if self.memory is not None:
            self.memory.put(batch, step=int(self.steps))
        self.steps += 1
        return values

    def _embedded(self, batch: Batch, model: Embed) -> tuple[Side, Originals | None]:
        """The batch of all ranks, as long as the losses want the vectors; and what to mix."""
        how: dict[str, object] = {"raw": True} if any(t.on_vectors for t in self.terms) else {}
        stage = self.mixup.stage if self.mixup is not None else None
        if stage is not None:
            how["tap"] = tap = StageHook(stage)
        vectors = distributed.gather(model(batch.images, **how))
        weights = distributed.gather(batch.weights) if batch.weights is not None else None
        side = Side(vectors, distributed.gather(batch.labels), weights)
        if stage is None:
            return side, None
        assert tap.seen is not None
        return side, Originals(distributed.gather(tap.seen), stage, batch.stacked()[:1], model)

    def _values(
        self, name: str, term: Term, batch: Side, originals: Originals | None
    ) -> dict[str, Tensor]:
        if term.on_vectors:
            if batch.weights is not None:
                raise UsageError(
                    f"{name} takes vectors, not pairs, and cannot weight images; leave out the "
                    "column `weight` or use another --loss"
                )
            return {name: term.of_vectors(batch)}
        anchors, candidates = term.standing(batch)
        pairs = self._mined(term, anchors, candidates)
        values = {name: term(pairs, anchors) + term.regularizer()}
        if self.memory is not None and term.minable and not self.memory.is_empty():
            remembered = term(self._mined(term, anchors, self.memory.side()), anchors)
            values[f"{name}/memory"] = self.memory.settings.weight * remembered
        if self.mixup is not None:
            mixture = mixing.draw(pairs, self.mixup, own=anchors.weights, generator=self.generator)
            if int(self.steps) == 0:
                logger.info(mixing.cost(mixture, originals))
            mixed = mixing.realised(mixture, pairs, anchors, candidates, originals)
            values[f"{name}/mixed"] = self.mixup.weight * term(mixed, anchors)
        return values

    def _mined(self, term: Term, anchors: Side, candidates: Side) -> Pairs:
        pairs = pairs_of(anchors, candidates)
        return self.miner(pairs) if self.miner is not None and term.minable else pairs


def _check_memory(terms: Sequence[Term], mining: str | None) -> None:
    """Raise UsageError where nothing can be remembered."""
    if reasons := [reason for term in terms if (reason := term.why_fixed())]:
        raise UsageError(f"--memory has no place here: {reasons[0]}; use another --loss")
    if not any(term.minable for term in terms):
        raise UsageError("--memory has no place here: all candidates are proxies")
    if mining is not None and components.parse("miners", mining).declared.square:
        raise UsageError(f"--memory has no place beside --miner {mining}: it needs a whole batch")


def _check_mixup(terms: Sequence[Term], mixup: Mixup) -> None:
    """Raise UsageError where mixed examples are not defined, or teach nothing."""
    if reasons := [reason for term in terms if (reason := mixing.why_not(term, mixup))]:
        raise UsageError(f"--mixup has no place here: {reasons[0]}")
