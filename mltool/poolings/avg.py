"""Global average pooling (Lin, Chen, Yan: Network in Network, ICLR 2014)."""

from torch import Tensor


def avg(maps: Tensor) -> Tensor:
    """Average each channel over its positions.

    v_c = mean over x

    Args: maps [B, C, H, W]. Returns [B, C].
    """
    return maps.mean(dim=(2, 3))
