"""Self-supervised tasks: what a network learns from images without labels.

A task compares views, random crops of the same images. It takes vectors of all views, [V, N, D] of
N images, behind its `projector`, and gives named scalars whose sum is minimised. It knows neither
networks nor processes: the rows are those of all ranks, so a head, Sinkhorn's algorithm or a queue
sees the whole batch.
"""

from abc import ABC, abstractmethod

from torch import Tensor, nn

from mltool.moment import Moment


class Pretext(nn.Module, ABC):
    """One self-supervised task with its heads; a file of this folder has one.

    `projector` maps vectors of the network to those that `forward` compares. Where the file
    declares `MOMENTUM`, there is a teacher: a copy of network and projector that follows them
    slowly, t <- m t + (1 - m) s, with m = `momentum(moment)`.
    """

    projector: nn.Module
    remedy = "lower --lr or raise --batch-size"  # where nothing is learned

    @abstractmethod
    def forward(self, student: Tensor, teacher: Tensor | None, moment: Moment) -> dict[str, Tensor]:
        """Return the terms by name, for vectors [V, N, D] of the student and of the teacher.

        None is at unit length; large views come first, and the teacher sees only these.
        """

    def momentum(self, moment: Moment) -> float:
        """Return m of a step, 0 where there is no teacher: a copy would be equal at once."""
        return 0.0

    def chance_loss(self, images: int) -> float | None:
        """Return the loss of a network that tells no two images of a batch apart.

        None where it says nothing about what was learned.
        """
        return None
