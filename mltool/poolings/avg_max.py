"""Average plus maximum pooling, as in the code of Kim et al.: Proxy Anchor Loss, CVPR 2020."""

from torch import Tensor


def avg_max(maps: Tensor) -> Tensor:
    """Add the mean and the maximum of each channel.

    v_c = mean over x + max over x

    Args: maps [B, C, H, W]. Returns [B, C].
    """
    return maps.mean(dim=(2, 3)) + maps.amax(dim=(2, 3))
