"""Heads of self-supervised tasks."""

from torch import Tensor, nn


def build_mlp(channels: int, hidden: int, dim: int, *, norm: bool) -> nn.Sequential:
    """Build Linear - (batch norm) - ReLU - Linear, for rows [..., channels] -> [..., dim].

    Batch normalisation always uses the rows at hand and remembers nothing: no head is used after
    training, and a teacher's pass cannot spoil what a student's remembers.
    """
    layers: list[nn.Module] = [nn.Linear(channels, hidden, bias=not norm)]
    if norm:
        layers.append(RowNorm(hidden, track_running_stats=False))
    return nn.Sequential(*layers, nn.ReLU(inplace=True), nn.Linear(hidden, dim))


class RowNorm(nn.BatchNorm1d):
    """Batch normalisation over all leading axes, [..., C]: views and images together."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - torch's name
        """Normalise each of C channels over all rows."""
        return super().forward(input.flatten(0, -2)).view_as(input)
