"""Tian, Krishnan, Isola, Contrastive Representation Distillation, ICLR 2020."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mltool.settings import Positive

INPUT = "raw"
NEEDS = {"penultimate", "index", "labels"}


class CRD(nn.Module):
    """Tell an image's vector in the other model's memory from the vectors of other images.

    mean_b ( h(x_b0 - c) + sum_k h(c - x_bk) ) for the student in the teacher's memory, plus the
    same with sides exchanged; h(x) = log(1 + e^-x), x_bk = v_b . m_k / T - log Z, c = log(K / N)

    Args:
        student_dim: length of the student's features.
        teacher_dim: length of the teacher's.
        images: N; both memories hold one projected vector per image.
        generator: draws first weights, first memories and the negatives.
        dim: length of the projections v and memories m; both are linear and learned.
        negatives: K, drawn for each image of the batch with replacement; m_0 is that of the image.
        temperature: T.
        momentum: of the memories, which take in the batch after the loss.

    Negatives are of other classes as far as labels are known, else of other images. Labels become
    known batch by batch; until then a memory is random. Z, one number per direction, is N times the
    mean of e^(v . m / T) in the first batch, and stays. The memories take 8 N dim bytes, a step
    8 B K dim. Several views of one image in a batch enter its memory by their mean. The authors add
    1e-7 to e^c; here it is left out.
    """

    student_memory: Tensor  # [N, dim]
    teacher_memory: Tensor  # [N, dim]
    known_labels: Tensor  # [N], -1 = unknown
    log_z: Tensor  # [2], infinite before the first batch

    def __init__(
        self,
        *,
        student_dim: int,
        teacher_dim: int,
        images: int,
        generator: torch.Generator,
        dim: int = 128,
        negatives: int = 4096,
        temperature: Positive = 0.07,
        momentum: float = 0.5,
    ) -> None:
        super().__init__()
        self.generator = generator
        self.negatives = negatives
        self.temperature = temperature
        self.momentum = momentum
        self.student_projection = _linear(student_dim, dim, generator)
        self.teacher_projection = _linear(teacher_dim, dim, generator)
        bound = math.sqrt(3 / dim)  # about unit length
        for side in ("student", "teacher"):
            memory = torch.empty(images, dim).uniform_(-bound, bound, generator=generator)
            self.register_buffer(f"{side}_memory", memory)
        self.register_buffer("known_labels", torch.full((images,), -1))
        self.register_buffer("log_z", torch.full((2,), torch.inf))

    def forward(self, student: Tensor, teacher: Tensor, *, index: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of features [B, D_s], [B, D_t] of the images in rows `index` [B].

        `labels` [B] are class indices, -1 = unknown. The memories are updated.
        """
        student = _project(student, self.student_projection)
        teacher = _project(teacher.detach(), self.teacher_projection)
        self.known_labels[index] = labels
        rows, has_negatives = self._draw(index)
        both = [
            torch.einsum("bd,bkd->bk", vectors, memory[rows])
            for vectors, memory in ((student, self.teacher_memory), (teacher, self.student_memory))
        ]
        value = self._cross_entropy(torch.stack(both) / self.temperature, has_negatives)
        self._remember(self.student_memory, index, student)
        self._remember(self.teacher_memory, index, teacher)
        return value

    @torch.no_grad()
    def _draw(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Draw negatives: rows [B, 1 + K] of the memories, the image itself first.

        Also returned is whether an image has any negatives [B]; without, its draws are void.
        """
        images = len(self.known_labels)
        # an image of unknown label is the only one of its class
        singletons = -1 - torch.arange(images, device=index.device)
        label = torch.where(self.known_labels >= 0, self.known_labels, singletons)
        ordered, order = label.sort(stable=True)
        anchor_labels = label[index]
        first = torch.searchsorted(ordered, anchor_labels)[:, None]
        size = torch.searchsorted(ordered, anchor_labels, right=True)[:, None] - first
        others = images - size
        shape = (len(index), self.negatives)
        draws = torch.rand(shape, generator=self.generator, dtype=torch.float64).to(index.device)
        position = (draws * others).long()
        position = position + size * (position >= first)  # past the image's class
        negatives = order[position.clamp(max=images - 1)]
        return torch.cat([index[:, None], negatives], dim=1), others.squeeze(1) > 0

    def _cross_entropy(self, logits: Tensor, has_negatives: Tensor) -> Tensor:
        """Return the loss of logits [2, B, 1 + K], before Z; `has_negatives` [B] masks draws."""
        images = len(self.known_labels)
        mean = logits.detach().flatten(1).logsumexp(dim=1) - math.log(logits[0].numel())
        self.log_z = torch.where(self.log_z.isinf(), mean + math.log(images), self.log_z)
        odds = logits - self.log_z[:, None, None] - math.log(self.negatives / images)
        negatives = F.softplus(odds[:, :, 1:]).sum(dim=2) * has_negatives
        return (F.softplus(-odds[:, :, 0]) + negatives).mean(dim=1).sum()

    @torch.no_grad()
    def _remember(self, memory: Tensor, index: Tensor, vectors: Tensor) -> None:
        """Blend the vectors [B, dim] into rows `index` of a memory, at unit length."""
        same = index[:, None] == index
        views = same.to(vectors.dtype)
        mean = views @ vectors / views.sum(dim=1, keepdim=True)
        blend = self.momentum * memory[index] + (1 - self.momentum) * mean
        # all views of an image write the same bytes, whichever comes last
        memory[index] = F.normalize(blend)[same.int().argmax(dim=1)]


def _linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Build a linear layer whose start depends on the generator alone."""
    layer = nn.Linear(inputs, outputs)
    for values in layer.parameters():
        nn.init.uniform_(values, -(inputs**-0.5), inputs**-0.5, generator=generator)
    return layer


def _project(vectors: Tensor, projection: nn.Linear) -> Tensor:
    return F.normalize(projection(vectors.to(projection.weight.dtype)))
