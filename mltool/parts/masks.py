"""Sanakoyeu et al., Improving Deep Metric Learning by Divide and Conquer, TPAMI 2021."""

from itertools import pairwise
from typing import Annotated

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.parts import check_count, save_as_one, split_blocks
from mltool.settings import Fraction, Natural, Neutral, Positive


class Masks(nn.Module):
    """A mask over all dimensions for each learner, learned with the model.

    part k of f = relu(m_k) * f;
    orthogonality x mean over i != j of cos(relu(m_i), relu(m_j))

    The whole vector is f itself, whatever the masks are. Masks start with ones; a doubling copies
    mask p to 2p and 2p + 1, which the images of the two learners then drive apart (equal masks are
    a stationary point of the orthogonality term). A dimension whose mask is not positive has no
    gradient any more.

    Args:
        dim: D, of the vectors and of a mask.
        count: K, the number of masks; none = as many as there are clusters.
        learn: whether masks learn. Fixed ones divide the dimensions among the learners in use, as
            slices do: a doubling halves each of them.
        orthogonality: what that term counts, while parts learn; 0.01 in the published runs, 1 by
            default in their program. 0 = without it.
        freeze_epochs: for how many epochs of a run, which begins with new clusters, the backbone
            stands still while parts learn; 1 in the published runs.
        lr: rate of the masks, none = --lr; a hundred times it in the published runs, which
            decay masks; ours are not decayed, as no gain is.
    """

    weight: nn.ParameterList | Tensor  # of each learner a mask; of fixed ones [K, D]
    in_use: Tensor  # scalar int64, how many learners have a cluster

    group = "masks"
    cuts_projection = False
    bounds: tuple[tuple[int, int], ...] = ()

    def __init__(
        self,
        *,
        dim: int,
        count: int | None = None,
        learn: bool = True,
        orthogonality: Fraction = 0.01,
        freeze_epochs: Annotated[Natural, Neutral(0)] = 0,
        lr: Annotated[Positive | None, Neutral(None)] = None,
    ) -> None:
        super().__init__()
        count = check_count(count)
        self.count, self.part_dim = count, dim
        self.orthogonality = orthogonality if learn else 0.0
        self.freeze_epochs = freeze_epochs
        if learn:
            self.weight = split_blocks(torch.ones(count, dim), count)
            save_as_one(self, "weight")
        else:
            self.register_buffer("weight", torch.ones(count, dim))
        self.register_buffer("in_use", torch.zeros((), dtype=torch.int64))

    def forward(self, vectors: Tensor, part: int) -> Tensor:
        """Return the vectors [B, D] as learner `part` sees them."""
        return self.weight[part].relu() * vectors

    def whole(self, vectors: Tensor) -> Tensor:
        """Return the vectors as they are."""
        return vectors

    def use(self, learners: int) -> None:
        """Note that the first `learners` masks have a cluster; fixed ones divide the dimensions."""
        self.in_use.fill_(learners)
        if isinstance(self.weight, Tensor):
            edges = [self.part_dim * part // learners for part in range(learners + 1)]
            self.weight[:learners] = 0
            for part, (start, stop) in enumerate(pairwise(edges)):
                self.weight[part, start:stop] = 1

    def similarity(self) -> Tensor:
        """Return the mean cosine of any two masks in use, 0 of a single one."""
        masks = torch.cat([mask.reshape(1, -1) for mask in self.weight])[: int(self.in_use)]
        masks = functional.normalize(masks.relu(), dim=1)
        pairs = len(masks) * (len(masks) - 1)
        cosines = masks @ masks.T
        return (cosines.sum() - cosines.trace()) / max(pairs, 1)
