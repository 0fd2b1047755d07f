"""No pooling: the whole map as one vector; the raw-pixel baseline uses it."""

from torch import Tensor


def flatten(maps: Tensor) -> Tensor:
    """All positions of all channels, one after another.

    v = vec(x)

    Args: maps [B, C, H, W]. Returns [B, C*H*W].
    """
    return maps.flatten(1)
