"""Feature maps and pooled features, read from the same forward pass that makes the embeddings."""

import torch
from torch import Tensor

from mltool.errors import UsageError
from mltool.models.embedder import Embedder
from mltool.models.modes import switch_to_eval

STAGES = 4  # the last feature maps of a network that are compared unless told otherwise


class FeatureHooks:
    """The last `stages` feature maps and the pooled features of a model's latest forward pass.

    `maps` are tensors [B, C, H, W], `pooled` is [B, C]; `channels` and `pooled_dim` are their
    depths. What the model returns stays the same. Raises UsageError for a network without so many
    stages.
    """

    def __init__(self, model: Embedder, stages: int) -> None:
        self.maps: list[Tensor] = []
        self.pooled = torch.empty(0)
        self._backbone, self._stages = model.backbone, stages
        if stages:
            self._check()
            # timm's forward_intermediates returns the same last maps, and those of the stages
            model.backbone.forward_features = self._forward  # type: ignore[assignment]
        model.after.register_forward_pre_hook(self._keep)
        with torch.no_grad(), switch_to_eval(model):
            model(torch.zeros(1, *model.spec.input_shape, device=model.mean.device))
        self.channels = tuple(maps.shape[1] for maps in self.maps)
        self.pooled_dim = self.pooled.shape[1]

    def _check(self) -> None:
        name = type(self._backbone).__name__
        stages = len(getattr(self._backbone, "feature_info", ()))
        if not hasattr(self._backbone, "forward_intermediates"):
            raise UsageError(f"{name} does not give its feature maps; use another --arch")
        if stages < self._stages:
            raise UsageError(f"{name} has {stages} stages; lower --stages {self._stages}")

    def _forward(self, images: Tensor) -> Tensor:
        last, self.maps = self._backbone.forward_intermediates(  # type: ignore[operator]
            images, indices=self._stages, output_fmt="NCHW", intermediates_only=False
        )
        return last

    def _keep(self, module: object, inputs: tuple[Tensor]) -> None:
        self.pooled = inputs[0]
