"""No pooling: the whole map as one vector; the raw-pixel baseline uses it."""

from torch import Tensor


def flatten(maps: Tensor) -> Tensor:
    """Flatten all positions of all channels into one vector.

    v = vec(x)

    Args: maps [B, C, H, W]. Returns [B, C*H*W].
    """
    return maps.flatten(1)
