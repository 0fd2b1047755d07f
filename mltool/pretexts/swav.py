"""Caron et al., Unsupervised Learning by Contrasting Cluster Assignments (SwAV), NeurIPS 2020."""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from mltool.moment import Moment
from mltool.pretexts import Pretext
from mltool.pretexts._heads import build_mlp
from mltool.pretexts._queue import Queue
from mltool.settings import Fraction, Natural, Positive

VIEWS = 0  # two large ones, and any number of further views

_LARGE = 2  # views that codes are computed of, as in the paper


class SwAV(Pretext):
    """Swapped assignments: predict the balanced cluster codes of a large view from other views.

    L = mean_(a in large, v != a) mean_i -sum_k Q_a[i,k] log softmax(z_v.C / t)_k, Q = Sinkhorn(z.C)

    Args:
        channels: length of the network's vectors.
        prototypes: K, the rows of C. 3000 on ImageNet; of small data some ten times the classes
            that one expects, and at most a quarter of batch and queue together.
        temperature: t.
        epsilon: smoothness of the codes. 0.05; 0.03 where the loss stays at ln K (authors' README).
        iterations: of Sinkhorn's algorithm.
        queue: rows of earlier batches, of each large view, that take part in Sinkhorn's algorithm
            once there are so many; 0 for none. 3840 in the authors' recipe for batches of 256.
        queue_from: fraction of the run after which the queue is filled. The authors wait 15 of 400
            epochs.
        freeze_epochs: epochs in which the prototypes stay as they are. 1 in the authors' recipes.
        hidden: width of the projector's hidden layer. 2048 for ResNet-50.
        dim: length of z.

    Prototypes have no bias; their rows get unit length before each forward, without gradient.
    """

    remedy = "raise freeze_epochs=, lower epsilon=, or take a larger --batch-size or queue="

    def __init__(
        self,
        *,
        channels: int,
        prototypes: int = 256,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        iterations: int = 3,
        queue: Natural = 1024,
        queue_from: Fraction = 0.1,
        freeze_epochs: Natural = 1,
        hidden: int = 2048,
        dim: int = 128,
    ) -> None:
        super().__init__()
        self.temperature, self.epsilon, self.iterations = temperature, epsilon, iterations
        self.queue_from, self.freeze_epochs = queue_from, freeze_epochs
        self.projector = build_mlp(channels, hidden, dim, norm=True)
        self.prototypes = nn.Parameter(functional.normalize(torch.randn(prototypes, dim)))
        queues = [Queue(torch.zeros(queue, dim)) for _ in range(_LARGE if queue else 0)]
        self.queues = nn.ModuleList(queues)

    def forward(self, student: Tensor, teacher: Tensor | None, moment: Moment) -> dict[str, Tensor]:
        """Return the loss of views [V, N, dim], and remember the large ones."""
        units = functional.normalize(student, dim=-1)
        prototypes = self._prepare_prototypes(moment)
        scores = units @ prototypes.T  # [V, N, K]
        codes = self._assign(scores[:_LARGE].detach(), prototypes.detach())
        if moment.progress >= self.queue_from:
            for queue, rows in zip(self._list_queues(), units.detach(), strict=False):
                queue.put(rows)
        return {"swav": swap_predictions(scores / self.temperature, codes)}

    def _prepare_prototypes(self, moment: Moment) -> Tensor:
        """Return the prototypes [K, dim] at unit length, without gradient as long as frozen.

        What has no gradient the optimiser leaves alone, its momentum and decay included.
        """
        with torch.no_grad():
            self.prototypes.copy_(functional.normalize(self.prototypes))
        is_frozen = moment.epoch < self.freeze_epochs
        return self.prototypes.detach() if is_frozen else self.prototypes

    def _assign(self, scores: Tensor, prototypes: Tensor) -> Tensor:
        """Return the codes [2, N, K] of the large views; full queues take part and are dropped."""
        earlier = [queue.rows @ prototypes.T for queue in self._list_queues() if queue.is_full]
        joined = torch.cat([torch.stack(earlier), scores], dim=1) if earlier else scores
        codes = [balance(each, epsilon=self.epsilon, iterations=self.iterations) for each in joined]
        return torch.stack(codes)[:, -scores.shape[1] :]

    def _list_queues(self) -> list[Queue]:
        """List the queue of each large view; all are as full."""
        return [queue for queue in self.queues if isinstance(queue, Queue)]

    def chance_loss(self, images: int) -> float:
        """Return ln K."""
        return math.log(len(self.prototypes))


@torch.no_grad()
def balance(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Return codes [N, K], rows of sum 1 that use all prototypes about alike, by Sinkhorn.

    The iterations take place in log space: exp(1 / 0.05) is beyond half precision.
    """
    logs = scores / epsilon
    for _ in range(iterations):
        logs = logs - logs.logsumexp(dim=0, keepdim=True)  # prototypes
        logs = logs - logs.logsumexp(dim=1, keepdim=True)  # images; the last, so rows are exact
    return logs.exp()


def swap_predictions(logits: Tensor, codes: Tensor) -> Tensor:
    """Return the mean cross-entropy of codes [A, N, K] with logits [V, N, K] of all other views."""
    log_p = logits.log_softmax(dim=-1)
    losses = [
        -(code * log_p[view]).sum(dim=-1).mean()
        for of_view, code in enumerate(codes)
        for view in range(len(log_p))
        if view != of_view
    ]
    return torch.stack(losses).mean()
