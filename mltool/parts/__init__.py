"""One file = one way to take a part of a vector: `(vectors [B, D], part) -> [B, D']`.

A part is what one learner of divide and conquer trains: a learner sees one cluster of the images,
and has one part of the vector. All parts exist from the start; of `count` parts the first `in_use`
belong to learners that have a cluster.

A component is an `nn.Module` in CamelCase that asks for `dim` (D, of the whole vector) and has

* `count`: the number of parts, and `part_dim`: the length D' of one;
* `bounds`: the columns of each part as (start, stop), empty where a part is no run of columns;
* `cuts_projection`: whether part k depends on block k of the projection's rows alone, so that a
  step of learner k leaves the other blocks without a gradient;
* `orthogonality` and `freeze_epochs`: what a run does besides, 0 = nothing;
* `whole(vectors [B, D]) -> [B, D]`: what the embedding is made of, before it is normalised;
* `use(learners)`: so many parts have a cluster from now on.

Optimisers with momentum move all rows of a parameter once one of them had a gradient. A learner
that has no turn shall stand still, so what belongs to one learner is a parameter of its own, a
block. `save_as_one` hides that from files: there the blocks are the rows of one tensor.
"""

from functools import partial

import torch
from torch import Tensor, nn

from mltool.errors import UsageError

_MOST = 1024  # parts: each is a parameter of its own, and a file from anywhere names their number


def check_count(count: int | None) -> int:
    """Return the number of parts. Raises UsageError where it is left open, and for too many."""
    if count is None or count > _MOST:
        raise UsageError(
            f"name the number of parts, {_MOST:,} at most, as in --parts slices:count=4"
        )
    return count


def split_blocks(values: Tensor, count: int) -> nn.ParameterList:
    """Return the rows of a tensor [N, ...] as `count` parameters [N / count, ...]."""
    return nn.ParameterList(map(nn.Parameter, values.detach().clone().chunk(count)))


def join_blocks(blocks: nn.ParameterList) -> Tensor:
    """Return the rows of all blocks as one tensor [N, ...]."""
    return torch.cat(list(blocks))


def save_as_one(module: nn.Module, name: str) -> None:
    """Let the state of `module` hold the blocks of its ParameterList `name` as one tensor."""
    module.register_state_dict_post_hook(partial(_join_saved, name))
    module.register_load_state_dict_pre_hook(partial(_split_saved, name))


def _join_saved(
    name: str, module: nn.Module, state: dict[str, Tensor], prefix: str, metadata: dict
) -> None:
    keys = [f"{prefix}{name}.{number}" for number in range(len(getattr(module, name)))]
    state[f"{prefix}{name}"] = torch.cat([state.pop(key) for key in keys])


def _split_saved(
    name: str, module: nn.Module, state: dict[str, Tensor], prefix: str, *arguments: object
) -> None:
    joined = state.pop(f"{prefix}{name}", None)
    if joined is not None:
        for number, block in enumerate(joined.chunk(len(getattr(module, name)))):
            state[f"{prefix}{name}.{number}"] = block
