"""He et al., Momentum Contrast (CVPR 2020); Chen et al., Improved Baselines with MoCo, 2020."""

import math

import torch
from torch import Tensor
from torch.nn import functional

from mltool.moment import Moment
from mltool.pretexts import Pretext
from mltool.pretexts._heads import build_mlp
from mltool.pretexts._queue import Queue
from mltool.settings import Fraction, Positive

VIEWS = 2
MOMENTUM = True

_USUAL_QUEUE = 4096


class MoCo(Pretext):
    """Momentum contrast, MoCo v2: tell a view's key from those of earlier batches.

    L = mean_i -log( exp(q_i.k_i / t) / (exp(q_i.k_i / t) + sum_j exp(q_i.Q_j / t)) )

    Args:
        channels: length of the network's vectors.
        images: how many images the list has.
        temperature: t. 0.2 in v2, 0.07 in v1, 0.1 of small data (its authors' CIFAR-10 notebook).
        queue: keys of earlier batches, Q. 65536 on ImageNet. none: 4096, at most a quarter of the
            images, for in a longer queue every image would be its own negative.
        momentum: of the copy that makes the keys. 0.99 of small data, 0.999 on ImageNet.
        symmetric: let both views be query and key, L = (L(q1, k2) + L(q2, k1)) / 2. False in the
            papers; both better and twice the work per batch in the authors' notebook.
        hidden: width of the projector's hidden layer. 2048 for ResNet-50.
        dim: length of q and k.

    The projector has no batch normalisation. Keys are put into the queue after the losses of both
    directions, so no key of this batch is a negative. The queue begins with random unit vectors,
    as the authors'.
    """

    remedy = "raise temperature= or momentum=, lower --lr, or take a larger --batch-size"

    def __init__(
        self,
        *,
        channels: int,
        images: int,
        temperature: Positive = 0.2,
        queue: int | None = None,
        momentum: Fraction = 0.99,
        symmetric: bool = True,
        hidden: int = 2048,
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.temperature, self.symmetric = temperature, symmetric
        self._momentum = momentum
        self.projector = build_mlp(channels, hidden, dim, norm=False)
        size = queue or max(1, min(_USUAL_QUEUE, images // 4))
        self.queue = Queue(functional.normalize(torch.randn(size, dim)))

    def forward(self, student: Tensor, teacher: Tensor | None, moment: Moment) -> dict[str, Tensor]:
        """Return the loss of views [2, N, dim], and remember the keys."""
        assert teacher is not None
        queries, keys = (functional.normalize(each, dim=-1) for each in (student, teacher))
        loss = self._contrast(queries[0], keys[1])
        if self.symmetric:
            loss = (loss + self._contrast(queries[1], keys[0])) / 2
        self.queue.put(keys.flatten(0, 1) if self.symmetric else keys[1])
        return {"moco": loss}

    def _contrast(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Return the mean loss of queries [N, dim], each with its key."""
        positive = (queries * keys).sum(dim=1, keepdim=True)
        logits = torch.cat([positive, queries @ self.queue.rows.T], dim=1) / self.temperature
        return (logits.logsumexp(dim=1) - logits[:, 0]).mean()

    def momentum(self, moment: Moment) -> float:
        """Return the momentum, the same all the time."""
        return self._momentum

    def chance_loss(self, images: int) -> float:
        """Return ln(1 + queue)."""
        return math.log(1 + len(self.queue.rows))
