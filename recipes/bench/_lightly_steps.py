"""The steps of self-supervision as lightly's examples write them, on a network of ours."""

import copy
from collections.abc import Callable, Sequence

import torch
from lightly import loss as losses
from lightly.models import modules, utils
from torch import Tensor, nn

Step = Callable[[Sequence[Tensor]], Tensor]  # views, each [B, 3, S, S] -> loss


def build_swav(backbone: nn.Module, dim: int) -> tuple[Step, list[nn.Parameter]]:
    """Build SwAV with 256 prototypes; two large views come first."""
    head = modules.SwaVProjectionHead(dim, 2048, 128)
    prototypes = modules.SwaVPrototypes(128, 256)
    loss_of = losses.SwaVLoss()

    def step(views: Sequence[Tensor]) -> Tensor:
        prototypes.normalize()
        units = [nn.functional.normalize(head(backbone(view, raw=True))) for view in views]
        scores = [prototypes(each) for each in units]
        return loss_of(scores[:2], scores[2:])

    return step, [*head.parameters(), *prototypes.parameters()]


def build_moco(backbone: nn.Module, dim: int) -> tuple[Step, list[nn.Parameter]]:
    """Build MoCo with a queue of 4,096 keys, both views as queries."""
    head = modules.MoCoProjectionHead(dim, 2048, 128)
    slow_backbone, slow_head = copy.deepcopy(backbone), copy.deepcopy(head)
    utils.deactivate_requires_grad(slow_backbone)
    utils.deactivate_requires_grad(slow_head)
    loss_of = losses.NTXentLoss(temperature=0.2, memory_bank_size=(4096, 128))

    def step(views: Sequence[Tensor]) -> Tensor:
        utils.update_momentum(backbone, slow_backbone, m=0.99)
        utils.update_momentum(head, slow_head, m=0.99)
        queries = [head(backbone(view, raw=True)) for view in views]
        with torch.no_grad():
            keys = [slow_head(slow_backbone(view, raw=True)) for view in views]
        return (loss_of(queries[0], keys[1]) + loss_of(queries[1], keys[0])) / 2

    return step, list(head.parameters())


def build_byol(backbone: nn.Module, dim: int) -> tuple[Step, list[nn.Parameter]]:
    """Build BYOL with heads of 4,096."""
    head = modules.BYOLProjectionHead(dim, 4096, 256)
    predictor = modules.BYOLPredictionHead(256, 4096, 256)
    slow_backbone, slow_head = copy.deepcopy(backbone), copy.deepcopy(head)
    utils.deactivate_requires_grad(slow_backbone)
    utils.deactivate_requires_grad(slow_head)
    loss_of = losses.NegativeCosineSimilarity()

    def step(views: Sequence[Tensor]) -> Tensor:
        utils.update_momentum(backbone, slow_backbone, m=0.99)
        utils.update_momentum(head, slow_head, m=0.99)
        predicted = [predictor(head(backbone(view, raw=True))) for view in views]
        with torch.no_grad():
            targets = [slow_head(slow_backbone(view, raw=True)) for view in views]
        return loss_of(predicted[0], targets[1]) + loss_of(predicted[1], targets[0])

    return step, [*head.parameters(), *predictor.parameters()]


def build_simclr(backbone: nn.Module, dim: int) -> tuple[Step, list[nn.Parameter]]:
    """Build SimCLR."""
    head = modules.SimCLRProjectionHead(dim, 2048, 128)
    loss_of = losses.NTXentLoss(temperature=0.2)

    def step(views: Sequence[Tensor]) -> Tensor:
        first, second = (head(backbone(view, raw=True)) for view in views)
        return loss_of(first, second)

    return step, list(head.parameters())


BUILDERS = {"swav": build_swav, "moco": build_moco, "byol": build_byol, "simclr": build_simclr}
