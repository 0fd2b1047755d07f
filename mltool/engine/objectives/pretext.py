"""Self-supervised tasks as terms: views of images, their momentum encoder and heads.

Each rank embeds its share of the images; vectors are gathered; heads, queues and prototypes run
behind that on the rows of all ranks, the same on each of them. Then two processes do what one does
with the whole batch, unless the network itself normalises by the batch.
"""

import torch
from torch import Tensor
from torch.func import functional_call

from mltool import components
from mltool.components import Choice
from mltool.engine.momentum import Follower
from mltool.engine.objectives.monitor import Monitor
from mltool.engine.objectives.objective import Term
from mltool.engine.objectives.step_outputs import StepOutputs, embed_views
from mltool.models.embedder import Embedder
from mltool.pretexts import Pretext


class PretextTerm(Term):
    """One self-supervised task on the views of a batch, with its heads and its teacher.

    The teacher, where the task has one, is a copy of network and projector. It follows them before
    it embeds the large views, and begins equal. Its batch normalisation, while it trains, uses the
    statistics of its own pass, large views of all images of the rank together. MoCo's shuffling of
    images among GPUs and its split statistics are absent, so a query and its key come from passes
    over the same images. `--freeze-bn`, or a network without batch norm, closes that leak.
    """

    group = "pretext"
    reads_raw = True  # a projector takes vectors as long as they are
    passes = "views"

    def __init__(self, choice: Choice, *, model: Embedder, images: int) -> None:
        super().__init__(choice.name)
        self.pretext: Pretext = components.load(  # type: ignore[assignment]
            "pretexts", choice, channels=model.spec.dim, images=images
        )
        self.remedy = self.pretext.remedy
        has_teacher = choice.declared.momentum
        self.encoder = Follower(model) if has_teacher else None
        self.projector = Follower(self.pretext.projector) if has_teacher else None
        self.monitor = Monitor(self.pretext)

    def forward(self, step: StepOutputs) -> dict[str, Tensor]:
        """Return the terms of the task, and let the monitor see what they were made of."""
        assert step.views is not None
        student = self.pretext.projector(step.views)
        terms = self.pretext(student, self._embed_slowly(step), step.moment)
        loss = torch.stack(list(terms.values())).sum().detach()
        self.monitor.watch(loss, vectors=step.vectors, projections=student[0], moment=step.moment)
        return terms

    def _embed_slowly(self, step: StepOutputs) -> Tensor | None:
        """Return the teacher's projections [V, B, d] of the large views, after it has followed."""
        if self.encoder is None or self.projector is None:
            return None
        encoder, projector = self.encoder, self.projector
        if step.moment.step > 0:
            momentum = self.pretext.momentum(step.moment)
            encoder.follow(momentum)
            projector.follow(momentum)
        views = embed_views(
            step.batch.views[:1],
            lambda images: encoder.embed(lambda of: step.model(images, raw=True, weights=of)),
        )
        return projector.embed(
            lambda of: functional_call(self.pretext.projector, dict(of), (views,))
        )

    def figures(self) -> dict[str, float]:
        """Return what the monitor has to say at the end of an epoch."""
        return self.monitor.figures()
