"""Supervised metric learning: losses on pairs of the batch, of batch and proxies, or on vectors."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool import components, distributed
from mltool.components import Value
from mltool.engine.data import Batch
from mltool.engine.loop import Embed
from mltool.errors import UsageError
from mltool.losses import Pairs, of_labels
from mltool.models.proxies import Proxies

Miner = Callable[[Pairs], Pairs]


class Supervised(nn.Module):
    """The sum of losses, each times its weight, over the rows of all ranks.

    `losses` are component texts that may carry `weight=`; `miner` chooses among the pairs of every
    loss whose both sides are the batch; one that draws at random is seeded by (seed, step).
    Labels are 0..classes-1.
    """

    steps: Tensor  # how many have been taken

    def __init__(
        self, losses: Sequence[str], *, miner: str | None, classes: int, dim: int, seed: int
    ) -> None:
        super().__init__()
        self.seed = seed
        self.generator = torch.Generator()
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        terms = [Term(text, classes=classes, dim=dim) for text in losses]
        self.names = _distinct([term.name for term in terms])
        self.terms = nn.ModuleList(terms)
        self.miner = _miner(miner, dim=dim, generator=self.generator)
        if miner and not any(term.minable for term in terms):
            raise UsageError(f"--miner {miner} has nothing to choose from: no loss has batch pairs")

    def forward(self, streams: Mapping[str, Batch], model: Embed) -> dict[str, Tensor]:
        """The weighted terms by name."""
        batch = streams["main"]
        if self.miner is not None:
            # equal on all ranks, and the same again after a resume
            self.generator.manual_seed(hash((self.seed, int(self.steps))))
            self.steps += 1
        raw = any(term.on_vectors for term in self.terms)
        vectors = distributed.gather(model(batch.images, raw=True) if raw else model(batch.images))
        labels = distributed.gather(batch.labels)
        return {
            name: term(vectors, labels, self.miner)
            for name, term in zip(self.names, self.terms, strict=True)
        }


class Term(nn.Module):
    """One loss with its proxies, if it has some, and its weight in the sum."""

    def __init__(self, text: str, *, classes: int, dim: int) -> None:
        super().__init__()
        bare, self.weight = split_weight(text)
        component, values = components.parse("losses", bare)
        self.name = component.name
        self.loss = components.load("losses", bare, classes=classes, dim=dim)
        module = components.module_of("losses", bare)
        self.on_vectors = getattr(module, "INPUT", "pairs") == "vectors"
        self.needs_labels = "labels" in getattr(module, "NEEDS", ())
        self.sides = (getattr(module, "ANCHORS", "batch"), getattr(module, "CANDIDATES", "batch"))
        self.minable = self.sides == ("batch", "batch") and not self.on_vectors
        self.proxies: Proxies | None = None
        if "proxies" in self.sides:
            setting = getattr(module, "PROXIES_PER_CLASS", None)
            per_class = _setting(component, values, setting) if setting else 1
            self.proxies = Proxies(classes, dim, per_class=per_class)

    def forward(self, vectors: Tensor, labels: Tensor, miner: Miner | None) -> Tensor:
        """The weighted loss of vectors [B, D] of any length with labels [B]."""
        if self.on_vectors:
            return self.weight * self.loss(vectors, labels)
        units = functional.normalize(vectors)
        sides = {"batch": (units, labels)}
        if self.proxies is not None:
            sides["proxies"] = (self.proxies(), self.proxies.labels)
        (anchors, anchor_labels), (candidates, candidate_labels) = (sides[s] for s in self.sides)
        itself = torch.eye(len(vectors), dtype=torch.bool, device=vectors.device)
        pairs = of_labels(
            anchors @ candidates.T,
            anchor_labels,
            candidate_labels,
            exclude=itself if anchors is candidates else None,
        )
        if miner is not None and self.minable:
            pairs = miner(pairs)
        value = self.loss(pairs, anchor_labels) if self.needs_labels else self.loss(pairs)
        if self.proxies is not None and hasattr(self.loss, "regularizer"):
            value = value + self.loss.regularizer(self.proxies())
        return self.weight * value


def _miner(text: str | None, *, dim: int, generator: torch.Generator) -> Miner | None:
    if text is None:
        return None
    return components.load("miners", text, dim=dim, generator=generator)


def _distinct(names: list[str]) -> list[str]:
    """The names, a repeated one numbered."""
    return [f"{n}-{i + 1}" if n in names[:i] else n for i, n in enumerate(names)]


def split_weight(text: str) -> tuple[str, float]:
    """`name:a=1,weight=0.5` as (`name:a=1`, 0.5): every term of a sum can be weighted."""
    name, _, rest = text.partition(":")
    items = [item for item in rest.split(",") if item]
    weights = [item for item in items if item.startswith("weight=")]
    others = ",".join(item for item in items if not item.startswith("weight="))
    bare = f"{name}:{others}" if others else name
    try:
        return bare, float(weights[-1].removeprefix("weight=")) if weights else 1.0
    except ValueError:
        raise UsageError(f"{text}: weight takes a number") from None


def resolved(text: str) -> str:
    """The canonical text of a weighted loss, for provenance."""
    bare, weight = split_weight(text)
    full = components.resolved("losses", bare)
    return full if weight == 1.0 else f"{full}{',' if ':' in full else ':'}weight={weight:g}"


def _setting(component: components.Component, values: dict[str, Value], name: str) -> int:
    default = {setting.name: setting.default for setting in component.settings}[name]
    value = values.get(name, default)
    assert isinstance(value, int)
    return value
