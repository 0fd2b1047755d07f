"""The learners of a model with parts: how many have a cluster, and what a doubling copies.

All parts exist from the start. A run with clusters says how many learners have one; the model
saves that. Twice as many clusters as learners, or up to that, is a doubling: the cluster of
learner p was split in two, so that learners 2p and 2p + 1 go on from what p has learned.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Protocol, cast, runtime_checkable

import torch
from torch import Tensor, nn

from mltool import components
from mltool.errors import InputError, UsageError
from mltool.models.spec import ModelSpec

# what one learner has alone, by the name of a parameter: a block, or a term of the objective
_LEARNED = re.compile(
    r"((?:model\.)?(?:after|parts)\.(?:\d+\.)?\w+\.|(?:.*\.)?terms\.part)(\d+)(.*)"
)


class Parts(Protocol):
    """What every component of `parts` has; `mltool.parts` says it in words."""

    count: int
    part_dim: int
    cuts_projection: bool
    orthogonality: float
    freeze_epochs: int
    in_use: Tensor

    @property
    def bounds(self) -> tuple[tuple[int, int], ...]:
        """The columns of each part."""
        ...

    def __call__(self, vectors: Tensor, part: int) -> Tensor:
        """Return a part [B, D'] of vectors [B, D]."""
        ...

    def whole(self, vectors: Tensor) -> Tensor:
        """Return the whole vectors [B, D] before they are normalised."""
        ...

    def use(self, learners: int) -> None:
        """Note how many learners have a cluster."""
        ...


@runtime_checkable
class Masks(Protocol):
    """What the orthogonality term reads of parts."""

    orthogonality: float

    def similarity(self) -> Tensor:
        """Return how alike the parts in use are."""
        ...


def create_parts(spec: ModelSpec) -> Parts | None:
    """Create the parts of a spec, None where it has none. Raises UsageError where they cannot be.

    A convolution and a normalisation behind the projection have no blocks of rows.
    """
    if not spec.parts:
        return None
    parts = cast(Parts, components.load("parts", spec.parts, dim=spec.dim))
    if parts.cuts_projection and spec.projection in ("conv", "linear-bn"):
        raise UsageError(
            f"--parts slices needs a projection of rows: linear, layernorm or none; leave out "
            f"--projection {spec.projection}"
        )
    return parts


def keep_fitting(state: dict[str, Tensor], before: str, parts: str) -> dict[str, Tensor]:
    """Return the state of a model without what belongs to other parts than `parts`.

    Slices and masks, and other numbers of them, are other learners.
    """

    def identify(text: str) -> object:
        choice = components.parse("parts", text)
        return choice.name, choice["count"]

    if before and parts and identify(before) == identify(parts):
        return state
    return {name: value for name, value in state.items() if not name.startswith("parts.")}


def count_learners(parts: Parts, clusters: int, *, source: str) -> int:
    """Return how many learners have a cluster from now on: as many as before, or twice as many.

    The first clusters may be any number. Raises InputError for more than there are parts, and for
    more than a doubling; `source` names the file of the clusters.
    """
    before = int(parts.in_use)
    if clusters > parts.count:
        raise InputError(
            f"{source} has {clusters} clusters, but the model {parts.count} parts; raise count in "
            "--parts, or split into fewer"
        )
    if not before:
        return clusters
    if clusters > 2 * before:
        raise InputError(
            f"{source} has {clusters} clusters, but {before} learners were in use; go on with as "
            f"many clusters, or with {2 * before} by cluster-split --double"
        )
    return 2 * before if clusters > before else before


def double(module: nn.Module, learners: int) -> set[str]:
    """Copy what each of `learners` has learned alone, in a model or an objective, to its two.

    Return the names of the parameters that were set.
    """
    parameters = dict(module.named_parameters())
    return parameters.keys() & double_values(parameters | dict(module.named_buffers()), learners)


@torch.no_grad()
def double_values(values: Mapping[str, Tensor], learners: int) -> set[str]:
    """Copy as `double` does among tensors by name; return the names of those that were set."""
    sources = find_sources(values, learners)
    copies = {name: values[source].clone() for name, source in sources.items()}
    for name, value in copies.items():
        values[name].copy_(value)
    return set(copies)


def find_sources(names: Iterable[str], learners: int) -> dict[str, str]:
    """Return, by the names of what learners have alone, what a doubling of `learners` copies there.

    Learners 2p and 2p + 1 get what p has.
    """
    sources = {}
    for name in names:
        match = _LEARNED.fullmatch(name)
        if match is not None and int(match[2]) < 2 * learners:
            sources[name] = f"{match[1]}{int(match[2]) // 2}{match[3]}"
    return sources
